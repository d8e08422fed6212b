"""Bases: coefficients to the update of a weight, and back."""
