"""What the paper did: every table and figure, run from the checkout."""
