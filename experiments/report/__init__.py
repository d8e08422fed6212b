"""Tables and figures: the paper's results beside ours, from outputs/ and reference/ alone."""
