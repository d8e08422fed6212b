"""Real training runs through train.py; their records, histories and predictions are kept."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.sections import Plan, Row
from experiments.results.environment import CHECKOUT

TASKS = ("rte", "mrpc", "stsb", "cola")
RATES = {"fourierft": "3e-2", "lora": "1e-3"}
SEEDS = range(5)
_LEFT_OUT = {"adapter", "checkpoints"}


def command(plan: Plan, task: str, method: str, seed: int) -> list[str]:
    """Return the command line of one run."""
    words = [sys.executable, "train.py", "model=minilm", f"task={task}", f"method={method}"]
    words += [f"seed={seed}", f"train.learning_rate={RATES[method]}", "train.epochs=20"]
    words += ["train.checkpoint_every=0", f"train.device={plan.device}", "offline=true"]
    words += [f"output={plan.out / 'runs'}"]
    words += [f"task.path={plan.data / task}"] if plan.data else []
    words += [f"model.path={plan.weights}"] if plan.weights else []
    if plan.tiny:
        words += ["profile=smoke"]
    return words


def runs(plan: Plan) -> list[tuple[int, str, str]]:
    """Return seed, task and method of every run, in their order."""
    wanted = list(itertools.product(SEEDS, TASKS, RATES))
    return wanted[:1] if plan.tiny else wanted


def measure_training(plan: Plan) -> Iterator[Row]:
    """Yield every run as it ends, `jobs` at a time: they wait for launches, and share a GPU well.

    Seeds are outermost, so that what is done when time runs out is whole seeds of all tasks.
    """
    if plan.data is None:
        yield {"skipped": "no data: --data FOLDER with rte, mrpc, stsb, cola"}
        return
    wanted = runs(plan)
    running: dict[tuple[int, str, str], tuple[subprocess.Popen, float]] = {}
    logs = plan.out / "logs"
    logs.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        while wanted or running:
            while wanted and len(running) < (1 if plan.tiny else plan.jobs):
                seed, task, method = key = wanted.pop(0)
                with (logs / f"{task}-{method}-{seed}.log").open("w") as log:
                    process = subprocess.Popen(
                        command(plan, task, method, seed),
                        cwd=CHECKOUT,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                running[key] = process, time.monotonic()
            for key, (process, began) in list(running.items()):
                if process.poll() is not None:
                    del running[key]
                    yield _outcome(plan, key, process.returncode, time.monotonic() - began)
            time.sleep(0.1)
    finally:
        for process, _ in running.values():
            process.kill()
            process.wait()
        keep_records(plan.out)


def _outcome(plan: Plan, key: tuple[int, str, str], code: int, seconds: float) -> Row:
    seed, task, method = key
    row: Row = {"task": task, "method": method, "seed": seed, "code": code}
    row["seconds"] = round(seconds, 1)
    if code:
        log = plan.out / "logs" / f"{task}-{method}-{seed}.log"
        return row | {"failure": log.read_text(errors="replace")[-400:]}
    for path in (plan.out / "runs").rglob(f"{task}/{method}/**/seed={seed}/metrics.json"):
        row["scores"] = json.loads(path.read_text()).get("metrics")
    return row


def keep_records(out: Path) -> None:
    """Pack the run folders without adapters and checkpoints into runs.tgz."""
    if not (out / "runs").is_dir():
        return
    with tarfile.open(out / "runs.tgz", "w:gz") as archive:
        archive.add(
            out / "runs",
            "runs",
            filter=lambda info: None if _LEFT_OUT & set(Path(info.name).parts) else info,
        )
