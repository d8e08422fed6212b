"""`python -m experiments.rehearsal` forwards to `experiments.smoke`."""

from experiments import console
from experiments.smoke.__main__ import main

if __name__ == "__main__":
    console.run_command("experiments.smoke", main, prints=False)
