"""`python -m experiments.answers` forwards to `experiments.commands.compare_answers`."""

from experiments import console
from experiments.commands.compare_answers import main

if __name__ == "__main__":
    console.run_command("experiments.answers", main)
