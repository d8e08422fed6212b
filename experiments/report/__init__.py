"""Tables and figures: what the paper printed beside what came out. Reads outputs/ and
reference/ only."""
