"""What the paper did: every model x task x method of its tables and figures, run from the checkout."""
