"""A sweep that is killed again and again ends with the records of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from records import contents

ROOT = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("FOURIERFT_KILLS", "3"))
SEEDS = max(2, KILLS // 2)


@pytest.mark.slow
def test_kill_nine_at_random_moments_leaves_the_undisturbed_sweep(tmp_path, data_folder):
    """A real encoder on real rows; FOURIERFT_KILLS says how many kills."""
    command = [
        *(sys.executable, "train.py", "-m", "model=minilm", "task=sst2"),
        *(
            "method=fourierft,lora,full",
            f"seed=range({SEEDS})",
            f"task.path={data_folder / 'glue/sst2'}",
        ),
        *("task.train_rows=96", "task.eval_rows=64", "train.epochs=4", "train.batch_size=16"),
        "train.device=cpu",
    ]

    def sweep(name: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, f"output={tmp_path / name}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    began = time.monotonic()
    assert sweep("whole").wait(timeout=900) == 0
    lasted = time.monotonic() - began
    draw = random.Random(KILLS)
    within, resumed = 0, 0
    for _ in range(KILLS):
        process = sweep("killed")
        time.sleep(draw.uniform(0.2, 0.45) * lasted)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            within += 1
        process.wait()
        resumed += any((tmp_path / "killed").rglob("checkpoints/checkpoint-*"))
    assert sweep("killed").wait(timeout=900) == 0
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert len(whole) == 3 * SEEDS and killed == whole
    print(f"{within} of {KILLS} kills met a run at work, {resumed} left a checkpoint")
    assert within and resumed
