"""Configuration: conf/ composed by Hydra into one checked Config."""
