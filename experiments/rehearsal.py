"""`python -m experiments.rehearsal` forwards to `experiments.smoke`."""

import sys

from experiments.smoke.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
