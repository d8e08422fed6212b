"""Many adapters of one base model, chosen row by row."""
