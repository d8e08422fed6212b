"""`python -m experiments.predict` forwards to `experiments.commands.predict`."""

from experiments import console
from experiments.commands.predict import main

if __name__ == "__main__":
    console.run_command("experiments.predict", main)
