"""The paper in small on real networks that need no hub: `python -m experiments.small --data DATA`.

conf/small.yaml lists sweeps of train.py, most telling first. Finished runs are skipped and a killed
one resumes, so the same command goes on after an interruption. The report judges the paper's claims
on these networks, never their numbers against the paper's.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments import console
from experiments.config import paths, sweep
from experiments.config.compose import CONF
from experiments.config.run_config import Config
from experiments.errors import ConfigError, DataError, UserError
from experiments.report import run_state
from experiments.report.run_state import State
from experiments.results.identity import get_run_dir

PLAN = CONF / "small.yaml"
LOGS = ".logs"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One command of train.py."""

    overrides: list[str]
    configs: list[Config]
    """One per run, seeds included."""

    def count_done(self) -> int:
        """Count its finished runs."""
        states = (run_state.look(Path(get_run_dir(one)), one).state for one in self.configs)
        return sum(one is State.done for one in states)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Sweeps that speak to the claims of some pages of the report."""

    name: str
    pages: list[str]
    minutes: float
    """Of two cores, estimated."""
    sweeps: list[Sweep]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the report.

    Returns:
        0, or 1 if a sweep or the report failed.
    """
    asked = _parse(arguments)
    parts = read_plan(asked.data, asked.outputs, asked.minutes)
    print(f"{len(parts)} parts, {sum(one.minutes for one in parts):g} minutes on two cores")
    for part in parts:
        runs = sum(len(one.configs) for one in part.sweeps)
        done = sum(one.count_done() for one in part.sweeps)
        print(f"{part.minutes:4g} min  {done:3} of {runs:3} runs done  {part.name}")
    require_inputs(parts)
    if asked.dry:
        return 0
    (asked.outputs / LOGS).mkdir(parents=True, exist_ok=True)
    sweeps = [(part.pages[0], one) for part in parts for one in part.sweeps]
    jobs = [(f"{place:02}-{page}", one) for place, (page, one) in enumerate(sweeps, 1)]
    with ThreadPoolExecutor(asked.jobs) as pool:
        good = list(pool.map(lambda job: _run(*job, asked.outputs), jobs))
    pages = dict.fromkeys(page for part in parts for page in part.pages)
    report = ["-m", "experiments.report", "--outputs", str(asked.outputs), "claims", *pages]
    good.append(console.run_logged(report, asked.outputs / LOGS / "report.log", folder=CONF.parent))
    failed = f"{good.count(False)} commands failed, see {asked.outputs / LOGS}"
    print(f"{failed if not all(good) else 'all done'}: {asked.outputs / 'report' / 'claims.html'}")
    return 0 if all(good) else 1


def read_plan(data: Path | None, outputs: Path, minutes: float = math.inf) -> list[Part]:
    """Read conf/small.yaml and compose every run of the parts that fit into some minutes.

    Args:
        data: folder with a subfolder per task, there or in its `glue`; None: data of the hub.
        outputs: folder of the runs.
        minutes: of two cores.

    Raises:
        ConfigError: runs that cannot be composed.
        DataError: tasks without a folder.
    """
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    parts = list(select_parts(plan["parts"], minutes))
    if not parts:
        least = min(part["minutes"] for part in plan["parts"])
        raise ConfigError(f"--minutes {minutes:g}: the shortest part takes {least}")
    lines = {line: line.split() for part in parts for line in part["sweeps"]}
    tasks = {line: _get_tasks(words) for line, words in lines.items()}
    lacking = dict.fromkeys(
        task
        for task in itertools.chain.from_iterable(tasks.values())
        if data is not None and _find_folder(data, task) is None
    )
    if lacking:
        problems = [f"no {task}/ and no glue/{task}/" for task in lacking]
        raise DataError(f"--data {data}: tasks of the plan without a folder", problems)
    apart: dict[str, Path | None] = {}
    for line, words in lines.items():
        words.append(f"seed={','.join(map(str, plan['seeds']))}")
        if data is not None:
            places = {task: _find_folder(data, task) for task in tasks[line]}
            folders = {str(place.parent) for place in places.values() if place is not None}
            if len(folders) > 1:
                apart |= places
            words.append(f"task.path={folders.pop()}/${{task.name}}")
    if apart:
        problems = [f"{task}: {place}" for task, place in apart.items()]
        raise DataError(f"--data {data}: tasks of one sweep need one folder", problems)
    return [
        Part(**{**part, "sweeps": [compose_sweep(lines[one], outputs) for one in part["sweeps"]]})
        for part in parts
    ]


def select_parts(parts: Sequence[dict[str, Any]], minutes: float) -> Iterator[dict[str, Any]]:
    """Yield the parts, most telling first, that fit into a number of minutes one after another."""
    for part in parts:
        if part["minutes"] <= minutes:
            minutes -= part["minutes"]
            yield part


def _get_tasks(words: Sequence[str]) -> list[str]:
    given = dict(word.split("=", 1) for word in words)
    return given["task"].split(",")


def compose_sweep(words: list[str], outputs: Path) -> Sweep:
    """Compose the runs of a sweep.

    Raises:
        ConfigError: some cannot be composed.
    """
    cells = list(sweep.compose_cells(None, paths.quote_paths(words)))
    wrong = [f"{' '.join(one.complete)}: {one.problem}" for one in cells if one.config is None]
    if wrong:
        raise ConfigError(f"{PLAN}: runs that cannot be composed", wrong)
    configs = [
        replace(one.config, seed=seed, output=str(outputs))
        for one in cells
        if one.config is not None
        for seed in one.seeds
    ]
    return Sweep(overrides=words, configs=configs)


def _find_folder(data: Path, task: str) -> Path | None:
    """Return the folder of a task's data; None if there is none."""
    places = (data / "glue" / task, data / task)
    return next((place for place in places if place.is_dir()), None)


def require_inputs(parts: Sequence[Part]) -> None:
    """Look for all weights and data.

    Raises:
        DataError: lists what is missing, each with the command that fetches it.
    """
    configs = [one for part in parts for each in part.sweeps for one in each.configs]
    sources = {source.name: source for one in configs for source in (one.model, one.task)}
    problems = []
    for source in sources.values():
        try:
            source.locate(offline=True)
        except UserError as error:
            problems += [error.summary, *(f"  {one}" for one in error.problems)]
    if problems:
        raise DataError("the plan lacks weights or data", problems)


def _run(name: str, one: Sweep, outputs: Path) -> bool:
    """Run a sweep, and print a line about its outcome."""
    log, began = outputs / LOGS / f"{name}.log", time.monotonic()
    given = [f"output={outputs}", "offline=true", "retry_failed=true"]
    command = ["train.py", "-m", *one.overrides, *given]
    good = console.run_logged(command, log, folder=CONF.parent)
    told = f"{one.count_done()} of {len(one.configs)} runs done"
    where = "" if good else f", see {log}"
    print(
        f"{time.monotonic() - began:6.0f} s  {told}{where}  {' '.join(one.overrides)}", flush=True
    )
    return good


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.small",
        description="Run the paper in small on networks that need no hub.",
    )
    parser.add_argument(
        "--data", type=Path, help="folder of the data, a subfolder per task (default: the hub)"
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        default=Path("outputs/small"),
        help="output folder (default: outputs/small)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="of two cores, by estimate: run the most telling parts that fit (default: all)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="parallel processes (default: 2)")
    parser.add_argument("--dry", action="store_true", help="print plan and minutes, run nothing")
    asked = parser.parse_args(arguments)
    asked.outputs = asked.outputs.absolute()
    if asked.data is not None:
        if not asked.data.is_dir():
            parser.error(f"--data {asked.data}: no such folder")
        asked.data = asked.data.absolute()
    if asked.jobs < 1:
        parser.error("--jobs must be at least 1")
    if not asked.minutes > 0:
        parser.error("--minutes must be above 0")
    return asked


if __name__ == "__main__":
    console.run_command("experiments.small", main, prints=False)
