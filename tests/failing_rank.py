"""train.py, except that one rank fails at its third step: `torchrun … failing_rank.py RANK …`."""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.training.trainer import Trainer  # noqa: E402

if __name__ == "__main__":
    rank, steps, training_step = sys.argv.pop(1), [], Trainer.training_step

    def failing_step(self, *args, **kwargs):
        steps.append(None)
        if os.environ["RANK"] == rank and len(steps) == 3:
            raise ArithmeticError(f"rank {rank} fails")
        return training_step(self, *args, **kwargs)

    Trainer.training_step = failing_step
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
