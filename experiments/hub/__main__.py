"""`python -m experiments.hub` forwards to `experiments.commands.prefetch`."""

from experiments import console
from experiments.commands.prefetch import main

if __name__ == "__main__":
    console.run_command("experiments.hub", main, prints=False)
