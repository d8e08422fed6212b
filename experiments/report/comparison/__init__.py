"""Runs held against the paper: groups of seeds, cells, verdicts, claims."""
