"""The adapted linear layer: forward and backward passes."""
