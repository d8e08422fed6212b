"""`python -m experiments.fid` forwards to `experiments.commands.fid`."""

import sys

from experiments.commands.fid import main

if __name__ == "__main__":
    sys.exit(main())
