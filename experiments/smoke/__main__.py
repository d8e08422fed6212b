"""Smoke test of tables and figures: `python -m experiments.smoke [figure5_biased figure6_lora]`.

Each experiment runs in full, but with one seed, two steps per cell and small random networks
(profile=smoke); searches run few trials. Nothing is downloaded. Runs, logs and the report go into
a separate folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments import console
from experiments.config import sweep
from experiments.config.compose import CONF, compose_config, register
from experiments.config.load import load_config
from experiments.errors import ConfigError, UserError
from experiments.smoke import fake_services, synthetic_data
from experiments.tasks import DreamBooth, Instruction, Task

DATA, LOGS = ".data", ".logs"
QUESTIONS, INCEPTION = "questions", "inception.safetensors"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Command of one experiment, and the tasks whose data it reads."""

    name: str
    command: list[str]
    """Arguments of the interpreter."""
    tasks: list[Task]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiments, then the report.

    Returns:
        0, or 1 if one of them failed.
    """
    asked = _parse(arguments)
    register()
    try:
        jobs = [plan_job(name, asked) for name in asked.names or sweep.list_experiments()]
        _prepare_data(jobs, asked.outputs / DATA, asked.data)
    except UserError as error:
        print(f"experiments.smoke: {error}", file=sys.stderr)
        return 1
    (asked.outputs / LOGS).mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def run_job(one: Job) -> bool:
        return _run(one.name, one.command, asked.outputs)

    with ThreadPoolExecutor(asked.jobs) as pool:
        whole = list(pool.map(run_job, jobs))
    # Try again: another experiment may have held a cell's lock.
    failed = [one.name for one, good in zip(jobs, whole, strict=True) if not (good or run_job(one))]
    for name, command in _list_follow_ups(jobs, asked.outputs):
        failed += [] if _run(name, command, asked.outputs) else [name]
    told = f"failed: {', '.join(failed)}" if failed else "all done"
    print(f"{told}, {time.monotonic() - began:.0f} s: {asked.outputs / 'report' / 'index.html'}")
    return 1 if failed else 0


def plan_job(name: str, asked: argparse.Namespace) -> Job:
    """Plan the small run of an experiment.

    Raises:
        ConfigError: no such experiment.
    """
    if name not in sweep.list_experiments():
        raise ConfigError(
            f"{name}: not an experiment (allowed: {', '.join(sweep.list_experiments())})"
        )
    start = [f"experiment={name}"]
    axes = dict(axis.split("=", 1) for axis in sweep.get_sweep_overrides(start))
    cfg = compose_config(start)
    shared = [f"output={asked.outputs}", "offline=true"]
    if not cfg.mode.trains:  # counts real sizes in a second
        return Job(name=name, command=["train.py", *start, *shared], tasks=[])
    shared.append(f"seed={axes.get('seed', '0').split(',')[0]}")
    if cfg.task.name == "toy":  # is small itself
        return Job(name=name, command=["train.py", *start, *shared], tasks=[])
    chosen = axes.get("task", cfg.task.name).split(",")
    tasks = [load_config(compose_config(one)).task for one in _list_samples(start, axes, chosen)]
    shared += ["profile=smoke", f"task.path={asked.outputs / DATA}/${{task.name}}"]
    if any(isinstance(task, Instruction) for task in tasks):
        shared.append(f"task.questions={asked.outputs / DATA / QUESTIONS}")
    if any(isinstance(task, DreamBooth) for task in tasks):
        shared.append(f"task.extractor={asked.outputs / DATA / INCEPTION}")
    if (CONF / "search" / f"{cfg.experiment}.yaml").is_file():
        search = ["-m", "experiments.search", f"search={cfg.experiment}"]
        return Job(
            name=name, command=[*search, *start, *shared, f"--trials={asked.trials}"], tasks=tasks
        )
    return Job(name=name, command=["train.py", *start, *shared], tasks=tasks)


def _list_samples(start: list[str], axes: dict[str, str], tasks: list[str]) -> Iterator[list[str]]:
    """Yield the overrides of one cell per task, with the first value of every other axis."""
    for task in tasks:
        first = {key: value.split(",")[0] for key, value in axes.items()} | {"task": task}
        yield [*start, *(f"{key}={value}" for key, value in first.items()), "profile=smoke"]


def _prepare_data(jobs: list[Job], folder: Path, real: Path | None) -> None:
    """Link the real data of all tasks, and make up the rest."""
    tasks = {task.name: task for one in jobs for task in one.tasks}
    for name, task in tasks.items():
        synthetic_data.make_data(task, folder / name, real)
    synthetic_data.make_questions(folder / QUESTIONS, real)
    if any(isinstance(task, DreamBooth) for task in tasks.values()):
        fake_services.write_inception(folder / INCEPTION)


def _list_follow_ups(jobs: list[Job], outputs: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands that follow the runs: the judge if there are answers, then the report."""
    if any(isinstance(task, Instruction) for one in jobs for task in one.tasks):
        with fake_services.serve_judge() as url:
            given = ["--all", str(outputs), "--questions", str(outputs / DATA / QUESTIONS)]
            given += ["--base-url", url, "--model", fake_services.JUDGE, "--partial"]
            given += ["--prompts", "ours"]
            yield "judge", ["-m", "experiments.judge", *given]
    yield "report", ["-m", "experiments.report", "--outputs", str(outputs)]


def _run(name: str, command: list[str], outputs: Path) -> bool:
    """Run a command with its output in a log file, and print one line about its outcome."""
    log, began = outputs / LOGS / f"{name}.log", time.monotonic()
    heading = f"python {' '.join(command)}\n\n"
    good = console.run_logged(command, log, folder=CONF.parent, heading=heading)
    told = "done" if good else f"failed, see {log}"
    print(f"{name:28} {time.monotonic() - began:6.0f} s  {told}", flush=True)
    return good


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.smoke",
        description="Run tables and figures end to end on small random networks, offline.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="EXPERIMENT", help="default: all of conf/experiment"
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of real data with a subfolder per task; missing tasks get made-up rows",
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        default=Path("outputs/smoke"),
        help="output folder (default: outputs/smoke)",
    )
    parser.add_argument("--trials", type=int, default=2, help="trials of each search (default: 2)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parallel processes")
    asked = parser.parse_intermixed_args(arguments)
    asked.outputs = asked.outputs.absolute()
    if asked.data is not None and not asked.data.is_dir():
        parser.error(f"--data {asked.data}: no such folder")
    if min(asked.trials, asked.jobs) < 1:
        parser.error("--trials and --jobs must be at least 1")
    return asked


if __name__ == "__main__":
    console.run_command("experiments.smoke", main, prints=False)
