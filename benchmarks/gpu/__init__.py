"""Correctness, speed and training on a GPU, in eight minutes: `python -m benchmarks.gpu`."""
