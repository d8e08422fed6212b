"""`python -m experiments.export` forwards to `experiments.commands.export`."""

from experiments import console
from experiments.commands.export import main

if __name__ == "__main__":
    console.run_command("experiments.export", main)
