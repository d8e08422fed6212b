"""Pages of single runs: curves, difference from the recipe, record."""
