"""`python -m experiments.hub` forwards to `experiments.commands.prefetch`."""

import sys

from experiments.commands.prefetch import main

if __name__ == "__main__":
    sys.exit(main())
