"""Searches for hyperparameters: one study per cell, kept and continued after any interruption."""
