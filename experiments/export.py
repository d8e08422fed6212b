"""`python -m experiments.export` forwards to `experiments.commands.export`."""

import sys

from experiments.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
