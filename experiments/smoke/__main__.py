"""Rehearses tables and figures: `python -m experiments.smoke [figure5_biased figure6_lora]`.

Each experiment runs as for real, with one seed, two steps per cell and small random networks
(profile=smoke), searches with few trials. Nothing is downloaded. Runs, logs and the report have a
folder of their own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments import console
from experiments.config import sweep
from experiments.config.compose import CONF, compose_config, register
from experiments.config.load import load
from experiments.errors import ConfigError, UserError
from experiments.smoke import fake_services, synthetic_data
from experiments.tasks import DreamBooth, Instruction, Task

DATA, LOGS = ".data", ".logs"
QUESTIONS, INCEPTION = "questions", "inception.safetensors"


@dataclass(frozen=True, kw_only=True)
class Act:
    """One experiment of the rehearsal."""

    name: str
    command: list[str]
    """What is run, behind the interpreter."""
    tasks: list[Task]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiments, then the report.

    Returns:
        0, or 1 if one of them failed.
    """
    asked = _parse(arguments)
    register()
    try:
        acts = [act(name, asked) for name in asked.names or sweep.names()]
        _lay_out(acts, asked.outputs / DATA, asked.data)
    except UserError as error:
        print(f"experiments.smoke: {error}", file=sys.stderr)
        return 1
    (asked.outputs / LOGS).mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def play(one: Act) -> bool:
        return _run(one.name, one.command, asked.outputs)

    with ThreadPoolExecutor(asked.jobs) as pool:
        whole = list(pool.map(play, acts))
    # Once more where a cell was at work in another experiment.
    failed = [one.name for one, good in zip(acts, whole, strict=True) if not (good or play(one))]
    for name, command in _after(acts, asked.outputs):
        failed += [] if _run(name, command, asked.outputs) else [name]
    told = f"failed: {', '.join(failed)}" if failed else "all done"
    print(f"{told}, {time.monotonic() - began:.0f} s: {asked.outputs / 'report' / 'index.html'}")
    return 1 if failed else 0


def act(name: str, asked: argparse.Namespace) -> Act:
    """How an experiment is rehearsed.

    Raises:
        ConfigError: no such experiment.
    """
    if name not in sweep.names():
        raise ConfigError(f"{name}: no experiment (allowed: {', '.join(sweep.names())})")
    start = [f"experiment={name}"]
    axes = dict(axis.split("=", 1) for axis in sweep.swept(start))
    cfg = compose_config(start)
    shared = [f"output={asked.outputs}", "offline=true"]
    if not cfg.mode.trains:  # counts real sizes in a second
        return Act(name=name, command=["train.py", *start, *shared], tasks=[])
    shared.append(f"seed={axes.get('seed', '0').split(',')[0]}")
    if cfg.task.name == "toy":  # is small itself
        return Act(name=name, command=["train.py", *start, *shared], tasks=[])
    chosen = axes.get("task", cfg.task.name).split(",")
    tasks = [load(compose_config(one)).task for one in _samples(start, axes, chosen)]
    shared += ["profile=smoke", f"task.path={asked.outputs / DATA}/${{task.name}}"]
    if any(isinstance(task, Instruction) for task in tasks):
        shared.append(f"task.questions={asked.outputs / DATA / QUESTIONS}")
    if any(isinstance(task, DreamBooth) for task in tasks):
        shared.append(f"task.extractor={asked.outputs / DATA / INCEPTION}")
    if (CONF / "search" / f"{cfg.experiment}.yaml").is_file():
        search = ["-m", "experiments.search", f"search={cfg.experiment}"]
        return Act(
            name=name, command=[*search, *start, *shared, f"--trials={asked.trials}"], tasks=tasks
        )
    return Act(name=name, command=["train.py", *start, *shared], tasks=tasks)


def _samples(start: list[str], axes: dict[str, str], tasks: list[str]) -> Iterator[list[str]]:
    """Overrides of one cell per task: the first value of all else."""
    for task in tasks:
        first = {key: value.split(",")[0] for key, value in axes.items()} | {"task": task}
        yield [*start, *(f"{key}={value}" for key, value in first.items()), "profile=smoke"]


def _lay_out(acts: list[Act], folder: Path, real: Path | None) -> None:
    """Data of all tasks, made up where there are no real ones."""
    tasks = {task.name: task for one in acts for task in one.tasks}
    for name, task in tasks.items():
        synthetic_data.make(task, folder / name, real)
    synthetic_data.make_questions(folder / QUESTIONS, real)
    if any(isinstance(task, DreamBooth) for task in tasks.values()):
        fake_services.write_inception(folder / INCEPTION)


def _after(acts: list[Act], outputs: Path) -> Iterator[tuple[str, list[str]]]:
    """What follows the runs: grades where there are answers, the report."""
    if any(isinstance(task, Instruction) for one in acts for task in one.tasks):
        with fake_services.judge() as url:
            given = ["--all", str(outputs), "--questions", str(outputs / DATA / QUESTIONS)]
            given += ["--base-url", url, "--model", fake_services.JUDGE, "--partial"]
            yield "judge", ["-m", "experiments.judge", *given]
    yield "report", ["-m", "experiments.report", "--outputs", str(outputs)]


def _run(name: str, command: list[str], outputs: Path) -> bool:
    """Runs a command whose output goes to a file, and says on a line how it went."""
    log, began = outputs / LOGS / f"{name}.log", time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        file.write(f"python {' '.join(command)}\n\n")
        file.flush()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=CONF.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        )
    told = "done" if done.returncode == 0 else f"failed, see {log}"
    print(f"{name:28} {time.monotonic() - began:6.0f} s  {told}", flush=True)
    return done.returncode == 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.smoke",
        description="Rehearses tables and figures end to end on small random networks, offline.",
    )
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="none: all of conf/")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of real data, a folder per task (made-up rows where there is none)",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs/smoke"), help="outputs/smoke")
    parser.add_argument("--trials", type=int, default=2, help="of each search; 2")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    asked = parser.parse_intermixed_args(arguments)
    asked.outputs = asked.outputs.absolute()
    if asked.data is not None and not asked.data.is_dir():
        parser.error(f"--data {asked.data}: no such folder")
    if min(asked.trials, asked.jobs) < 1:
        parser.error("--trials and --jobs must be at least 1")
    return asked


if __name__ == "__main__":
    console.command("experiments.smoke", main, prints=False)
