"""Experiments of the paper: every table and figure, run from the checkout."""

import logging

# On some CPUs its import warns of a kernel for packed 4-bit weights, whatever the run is about.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
