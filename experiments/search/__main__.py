"""Search every cell of a sweep: `python -m experiments.search search=figure4 task=cola,rte …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments import console
from experiments.config import overrides, paths, plugins, sweep
from experiments.config.compose import compose_config, register
from experiments.config.load import load_config
from experiments.config.run_config import IDENTITY, Config
from experiments.errors import ConfigError, Occupied, RecordError, UserError
from experiments.metrics.classification import LOWER_IS_BETTER
from experiments.results import inputs, lock
from experiments.results.identity import get_run_dir, name_variant
from experiments.results.record import replace_nonfinite
from experiments.search import space
from experiments.search.study import Study

HELP = """\
Every cell (model, task, method, fixed values, seed) has a study of its own below
outputs/.searches/. The same command again adds what is missing of --trials finished trials.
Spaces with a name (search=…): {names}.
"""
FAILURES = 3
"""Trials that fail one after the other before a cell is given up."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the search; exit with 1 if a cell ends with fewer finished trials than asked for.

    A cell that another process is at is passed over and does not count.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.search",
        description=__doc__,
        epilog=HELP.format(names=", ".join(space.list_spaces())),
    )
    parser.add_argument("overrides", nargs="+", help="as for train.py, with search=… or intervals")
    parser.add_argument("--trials", type=int, help="finished trials of every cell")
    parser.add_argument("--seed", type=int, default=0, help="of the search; 0")
    given = parser.parse_intermixed_args(arguments)
    try:
        words = plugins.take_plugins(given.overrides)
        short = search(paths.quote_paths(words), given.trials, given.seed)
    except UserError as error:
        sys.exit(f"experiments.search: {error}")
    except KeyboardInterrupt:
        sys.exit("experiments.search: interrupted; the same command goes on")
    if short:
        sys.exit("\n  - ".join(["experiments.search: cells that fell short", *short]))


def search(given: list[str], trials: int | None, seed: int) -> list[str]:
    """Search every cell until it has so many finished trials.

    Args:
        given: overrides.
        trials: None takes the number of the chosen search.
        seed: of the searches.

    Returns:
        A line for each cell that fell short.

    Raises:
        ConfigError: invalid overrides, no search space, or an invalid cell.
    """
    register()
    wrong = overrides.find_problems(given, searching=True)
    if not wrong:
        axes, planned, rest = parse_plan(given)
        wrong = overrides.find_problems([*rest, *(axis.example for axis in axes)])
    if wrong:
        raise ConfigError("invalid overrides", wrong)
    number = trials if trials is not None else planned
    if number is None or number < 1:
        raise ConfigError(f"--trials={number}: must be at least 1 (a search=… may give it)")
    experiments = [word for word in rest if word.startswith("experiment=")]
    name = experiments[-1].partition("=")[2] if experiments else None
    rest = [word for word in rest if word not in experiments]
    cells = list(sweep.compose_cells(name, [*rest, *(axis.example for axis in axes)]))
    problems = [f"{' '.join(cell.overrides)}: {cell.problem}" for cell in cells if cell.problem]
    if problems:
        raise ConfigError("invalid cells", problems)
    short = []
    for cell in cells:
        for cell_seed in cell.seeds:
            short += _search_cell(cell, cell_seed, axes, number, seed)
    return short


def parse_plan(given: list[str]) -> tuple[list[space.Axis], int | None, list[str]]:
    """Space, number of trials (None if nothing says it) and the other overrides."""
    chosen = [word for word in given if word.startswith("search=")]
    typed = [word for word in given if word not in chosen and space.is_search(word)]
    rest = [word for word in given if word not in (*chosen, *typed)]
    own, planned = space.load_space(chosen[-1].partition("=")[2]) if chosen else ([], None)
    axes = {axis.key: axis for axis in space.parse_axes([*own, *typed])}
    for word in rest:  # a value that is given is not searched
        axes.pop(word.partition("=")[0], None)
    if not axes:
        raise ConfigError(
            "nothing to search", ["choose search=…, or give a key an interval: key=interval(a,b)"]
        )
    return list(axes.values()), planned, rest


def _search_cell(
    cell: sweep.Cell, cell_seed: int, axes: list[space.Axis], number: int, seed: int
) -> Iterator[str]:
    """Bring one cell to its number of trials; yield what it falls short by."""
    keys = {axis.key for axis in axes}
    fixed = [word for word in cell.complete if word.partition("=")[0] not in keys]
    fixed.append(f"seed={cell_seed}")
    place = get_folder(cell.config, fixed)
    metric = cell.config.task.metrics[0]
    place.mkdir(parents=True, exist_ok=True)
    try:
        with lock.acquire_lock(place):
            inputs.pin_inputs(place, cell.config)
            study = Study(place, axes, lower=metric in LOWER_IS_BETTER, seed=seed)
            in_a_row = 0
            while study.finished < number and in_a_row < FAILURES:
                in_a_row = 0 if _run_trial(study, fixed, metric) else in_a_row + 1
            done, best = study.finished, study.best()
    except Occupied as error:
        print(f"passed over: {error.summary}", flush=True)
        return
    except RecordError as error:
        yield "; ".join([error.summary, *error.problems])
        return
    if best is not None:
        values = " ".join(f"{key}={value}" for key, value in best["params"].items())
        print(f"{place}: {done} trials, best {metric} {best['value']} with {values}", flush=True)
    if done < number:
        yield f"{place}: {done} of {number} trials; the last {FAILURES} failed"


def _run_trial(study: Study, fixed: list[str], metric: str) -> bool:
    """Run one trial, or find it done; return False if it failed."""
    from experiments.run.main import run

    proposal = study.propose()
    place = None
    print(f"trial {proposal.number}: {' '.join(proposal.overrides)}", flush=True)
    try:
        loaded = load_config(compose_config([*fixed, *proposal.overrides]))
        place = str(get_run_dir(loaded))
        record = run(loaded)
        if record.metrics is None or record.metrics["primary"]["name"] != metric:
            raise ConfigError(f"{place}: measured something else than {metric}")
    except Occupied:
        raise
    except Exception as error:  # whatever a run raises: the next trial may work
        study.fail(proposal.number, f"{type(error).__name__}: {error}", place)
        print(f"trial {proposal.number} failed: {error}", file=sys.stderr, flush=True)
        return False
    study.finish(proposal.number, replace_nonfinite(record.metrics["primary"]["value"]), place)
    return True


def get_folder(cell: Config, fixed: list[str]) -> Path:
    """Return a study's folder: output/.searches/model/task/method[/fixed values]/seed=s."""
    changes = {}
    for word in fixed:
        key, _, value = word.lstrip("+~").partition("=")
        section, _, entry = key.partition(".")
        if (entry and entry not in IDENTITY.get(section, (entry,))) or key in (
            "source",
            "profile",
            "mode",
            "row",
        ):
            changes[key] = value
    place = Path(cell.output) / ".searches" / cell.model.name / cell.task.name / cell.method.name
    return (place / name_variant(changes) if changes else place) / fixed[-1]


if __name__ == "__main__":
    console.run_command("experiments.search", main, prints=False)
