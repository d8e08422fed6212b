"""Smoke test of every table and figure, end to end, without pretrained weights, hub or GPU."""
