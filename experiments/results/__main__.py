"""`python -m experiments.results` forwards to `experiments.commands.results`."""

import sys

from experiments.commands.results import main

if __name__ == "__main__":
    sys.exit(main())
