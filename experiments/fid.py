"""`python -m experiments.fid` forwards to `experiments.commands.fid`."""

from experiments import console
from experiments.commands.fid import main

if __name__ == "__main__":
    console.run_command("experiments.fid", main)
