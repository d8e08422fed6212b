"""`python -m experiments.results` forwards to `experiments.commands.results`."""

from experiments import console
from experiments.commands.results import main

if __name__ == "__main__":
    console.run_command("experiments.results", main)
