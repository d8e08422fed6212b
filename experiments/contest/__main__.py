"""Run a contest of settings: `python -m experiments.contest smollm2_e2e task.path=DATA`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import console
from experiments.config import overrides
from experiments.config.compose import compose_config, register
from experiments.config.load import load_config
from experiments.config.paths import quote_paths
from experiments.config.run_config import IDENTITY, Config
from experiments.contest import results, retention, schedule
from experiments.contest.plan import (
    KEY,
    Contest,
    find_taken,
    list_contests,
    load_contest,
    locate_results,
)
from experiments.contest.scores import Trial, read_trial
from experiments.errors import ConfigError, Occupied, UserError
from experiments.report.comparison.paired import OF_ROWS
from experiments.results.identity import get_run_dir
from experiments.results.record import replace_nonfinite
from experiments.results.run_folder import find_record

HELP = """\
Every contestant is tried at the learning rates of its grid, and at more while the best lies at its
edge. One half of the scored rows chooses the rate and the other is reported, and the other way
round; the chosen rates are repeated with more seeds. Trials are ordinary runs: the same command
again goes on where it was. Table and trials are written to outputs/.contests/.
Contests: {names}.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of a contest, then write its table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.contest",
        description=__doc__,
        epilog=HELP.format(names=", ".join(list_contests())),
    )
    parser.add_argument("name", metavar="CONTEST")
    parser.add_argument("overrides", nargs="*", help="for all runs, as for train.py")
    parser.add_argument("--only", help="contestants, by comma; the reference always takes part")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the contest's)")
    parser.add_argument(
        "--outside",
        metavar="OVERRIDES",
        help="measure the loss on another text too: overrides in quotes, 'task=alpaca …'",
    )
    parser.add_argument("--table", action="store_true", help="run nothing; table of what is there")
    asked = parser.parse_intermixed_args(arguments)
    try:
        register()
        contest = load_contest(asked.name)
        if asked.only is not None:
            contest = contest.select([name.strip() for name in asked.only.split(",")])
        if asked.seeds is not None:
            if not 1 <= asked.seeds <= len(contest.seeds):
                raise ConfigError(f"--seeds {asked.seeds}: allowed 1 to {len(contest.seeds)}")
            contest = replace(contest, seeds=contest.seeds[: asked.seeds])
        outside = None if asked.outside is None else quote_paths(shlex.split(asked.outside))
        given = quote_paths(asked.overrides)
        failed = hold(contest, given, table_only=asked.table, outside=outside)
    except UserError as error:
        sys.exit(f"experiments.contest: {error}")
    except KeyboardInterrupt:
        sys.exit("experiments.contest: interrupted; the same command goes on")
    if failed:
        sys.exit("\n  - ".join(["experiments.contest: trials that failed", *failed]))


def hold(
    contest: Contest,
    given: list[str],
    *,
    table_only: bool = False,
    outside: list[str] | None = None,
) -> list[str]:
    """Run a contest to its end.

    Args:
        contest: the contest.
        given: overrides for all runs.
        table_only: train nothing.
        outside: overrides of a text on which the trained networks are measured too.

    Returns:
        A line for each trial that failed. A failed trial ends its contestant's part.

    Raises:
        ConfigError: overrides that do not fit, for any contestant.
    """
    _check(contest, given)
    contest = replace(contest, given=tuple(word for word in given if _measures(word)))
    output = Path(_compose(contest, contest.contestants[0].overrides, given).output)
    done = dict(find_done(contest, given))
    failed, going_on = [], contest
    while not table_only and (planned := schedule.find_next(going_on, done)) is not None:
        key = (planned.contestant.name, planned.rate, planned.seed)
        words = [f"{KEY}={planned.rate:g}", f"seed={planned.seed}"]
        print(f"{planned.contestant.name}: {' '.join(words)}", flush=True)
        try:
            done[key] = _run(contest, planned, given)
        except Occupied:
            raise
        except Exception as error:  # whatever a run raises: the other contestants go on
            failed.append(f"{planned.contestant.name}: {' '.join(words)}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
            going_on = going_on.drop(planned.contestant)
    result = results.summarize(contest, done)
    place = locate_results(output, contest)
    if outside is not None:
        result["outside"] = replace_nonfinite(measure_outside(contest, done, given, outside))
    results.keep_outside(result, place)
    print(results.write(result, place))
    return failed


def find_done(contest: Contest, given: list[str]) -> Iterator[tuple[tuple[str, float, int], Trial]]:
    """Yield the finished trials of a contest, with contestant, rate and seed."""
    for contestant in contest.contestants:
        for rate in schedule.list_possible_rates(contestant):
            config = _compose(contest, contestant.at(rate), given)
            for seed in contest.seeds:
                one = replace(config, seed=seed)
                run_dir = get_run_dir(one)
                record = find_record(run_dir, one)
                if record is not None:
                    yield (contestant.name, rate, seed), read_trial(run_dir, record, rate, seed)


def measure_outside(
    contest: Contest, done: schedule.Done, given: list[str], outside: list[str]
) -> dict[str, Any]:
    """Return the loss on another text: `text`, `rows`, `base`, and `losses` of every trial."""
    own = [word for word in given if not word.startswith("task.")]
    shared = [word for word in contest.overrides if not word.startswith(("task=", "task."))]
    first = contest.contestants[0]
    reader = retention.Reader(
        load_config(compose_config([*shared, *first.at(first.rates[0]), *own, *outside]))
    )
    base = reader.read_base()
    losses = []
    for contestant in contest.contestants:
        for name, rate, seed in sorted(key for key in done if key[0] == contestant.name):
            trained = _compose(contest, [*contestant.at(rate), f"seed={seed}"], given)
            loss = reader.read_trained(trained, get_run_dir(trained)).mean
            losses.append({"contestant": name, "rate": rate, "seed": seed, "loss": loss})
            print(f"{name}: {KEY}={rate:g} seed={seed}: {loss:.4f}", flush=True)
    return {
        "text": " ".join(word for word in outside if "path" not in word),
        "rows": len(base.sums),
        "base": base.mean,
        "losses": losses,
    }


def _check(contest: Contest, given: list[str]) -> None:
    """Compose the first trial of every contestant.

    Raises:
        ConfigError: all problems at once.
    """
    problems = list(find_taken(given))
    for contestant in contest.contestants if not problems else ():
        words = contestant.at(contestant.rates[0])
        wrong = overrides.find_problems([*contest.overrides, *words, *given])
        try:
            if not wrong:
                wrong = list(_find_unfit(_compose(contest, words, given)))
        except ConfigError as error:
            wrong = [error.summary, *error.problems]
        problems += [f"{contestant.name}: {line}" for line in wrong]
    if problems:
        raise ConfigError(f"contest {contest.name}", list(dict.fromkeys(problems)))


def _find_unfit(config: Config) -> Iterator[str]:
    """Yield why a run has no score of stored predictions, which halves and intervals need."""
    metrics = config.task.metrics
    if metrics and metrics[0] not in OF_ROWS:
        allowed = ", ".join(OF_ROWS)
        yield f"task.metrics={metrics}: the first one must be scored by row (allowed: {allowed})"


def _measures(word: str) -> bool:
    """Return True for an override that changes what is measured, not where it is computed."""
    section, *entry = word.lstrip("+~").partition("=")[0].split(".")
    return section in IDENTITY and IDENTITY[section].isdisjoint(entry[:1])


def _compose(contest: Contest, words: list[str], given: list[str]) -> Config:
    return load_config(compose_config([*contest.overrides, *words, *given]))


def _run(contest: Contest, planned: schedule.Planned, given: list[str]) -> Trial:
    from experiments.run.main import run

    words = [*planned.contestant.at(planned.rate), f"seed={planned.seed}"]
    config = _compose(contest, words, given)
    record = run(config)
    return read_trial(get_run_dir(config), record, planned.rate, planned.seed)


if __name__ == "__main__":
    console.run_command("experiments.contest", main, prints=False)
