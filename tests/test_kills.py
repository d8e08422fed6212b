"""A sweep that is killed again and again ends with the records of one that was left alone."""

import os
import random
import time

import pytest
from processes import Started, train
from records import contents

KILLS = int(os.environ.get("FOURIERFT_KILLS", "2"))
SEEDS = max(1, KILLS // 2)


@pytest.mark.slow
@pytest.mark.timeout(300 + 90 * KILLS)
def test_kill_nine_at_random_moments_leaves_the_undisturbed_sweep(tmp_path, data_folder):
    """A real encoder on real rows; FOURIERFT_KILLS says how many kills."""
    command = [
        *("-m", "model=minilm", "task=sst2"),
        *(
            "method=fourierft,lora,full",
            f"seed=range({SEEDS})",
            f"task.path={data_folder / 'glue/sst2'}",
        ),
        *("task.train_rows=16", "task.eval_rows=8", "train.epochs=3", "train.batch_size=8"),
        "train.device=cpu",
    ]

    def sweep(name: str) -> Started:
        return train(*command, f"output={tmp_path / name}")

    def evaluated() -> int:
        return len(list((tmp_path / "killed").glob("*/*/*/*/*/predictions/*.npz")))

    assert sweep("whole").wait(timeout=900) == 0
    draw = random.Random(KILLS)
    within, resumed = 0, 0
    for _ in range(KILLS):
        before, process = evaluated(), sweep("killed")
        while process.poll() is None and evaluated() <= before:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 3))  # about the length of a cell
        if process.poll() is None:
            process.kill()
            within += 1
        process.wait()
        resumed += any((tmp_path / "killed").glob("*/*/*/*/*/checkpoints/checkpoint-*"))
    assert sweep("killed").wait(timeout=900) == 0
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert len(whole) == 3 * SEEDS and killed == whole
    print(f"{within} of {KILLS} kills met a run at work, {resumed} left a checkpoint")
    assert within


@pytest.mark.slow
@pytest.mark.timeout(900 + 90 * KILLS)
def test_kills_at_file_operations_and_random_moments_leave_the_undisturbed_run():
    """FOURIERFT_KILLS=200 has the whole of it: so many random ones, and every file operation."""
    stride = max(1, 60 // KILLS)
    process = Started("tests/kills.py", f"--random={KILLS}", f"--stride={stride}")
    said, _ = process.communicate(timeout=900 + 90 * KILLS)
    assert process.returncode == 0, said
    assert said.count("every record is that of one run") == 2, said
