"""`python -m experiments.answers` forwards to `experiments.commands.compare_answers`."""

import sys

from experiments.commands.compare_answers import main

if __name__ == "__main__":
    sys.exit(main())
