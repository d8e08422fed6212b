"""Figure 7: epochs until 128 trained parameters fit eight classes of points."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from experiments.report.comparison import paired, toy_runs
from experiments.report.comparison.run_index import RunIndex, number
from experiments.report.comparison.toy_runs import ToyRun, percent
from experiments.report.comparison.verdict import Judgement, Verdict
from experiments.report.plots import decision_regions, training_curves
from experiments.report.render.document import (
    NOT_RUN,
    Block,
    Items,
    Line,
    Page,
    Picture,
    Prose,
    Shown,
    Table,
    heading,
    title,
)

NUMBERS = (
    *("Seed", "First at 100 %", "Stays from", "Final", "Best", "Test"),
    *("Epochs", "Parameters", "Learning rate", "Seconds"),
)


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of every seed's curve and epochs beside the paper's claim."""
    runs, left_out = toy_runs.find(facts, index)
    states = facts["states"]
    raw = [
        _numbers(method, seed, _of(runs, method, seed))
        for method in states["methods"]
        for seed in _seeds(facts, runs, method)
    ]
    judgement = judge(facts, runs)
    decided = judgement.reason
    drawn = {
        method: [run.curve for run in runs if run.method == method] for method in states["methods"]
    }
    caption = [f"Paper: {facts['claim'].strip()}", decided]
    blocks: list[Block] = [*heading(facts), Prose(f"**{decided}**")]
    blocks.append(
        Picture(
            name=name,
            alt=f"Training accuracy over epochs. {decided}",
            caption="Training accuracy over epochs",
            draw=partial(training_curves.draw, facts, drawn, caption),
        )
    )
    planes = decision_regions.read(runs, index.root)
    if planes:
        blocks.append(
            Picture(
                name=f"{name}_regions",
                alt="What class each network gives to every point of the plane",
                caption="The plane as the networks of the lowest seed divide it; dots: the points "
                "they were trained on",
                draw=partial(decision_regions.draw, facts, planes),
            )
        )
    blocks.append(
        Table(
            caption=title(facts),
            columns=("Method", *NUMBERS),
            lines=[
                Line(cells=_words(states["methods"][row["method"]]["name"], row)) for row in raw
            ],
            numbers=NUMBERS,
            heads=2,
        )
    )
    blocks.append(Prose(_reading(runs)))
    if any(row["record"] is None for row in raw):
        blocks.append(Prose(f"Not run: `{facts['run']}`"))
    blocks.append(_choices(facts, runs))
    if left_out:
        blocks += [Prose("Other runs of the toy, not counted here:"), Items(left_out)]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=raw,
        rule="last",
        summary=decided,
        verdicts={judgement.verdict: 1},
    )


def judge(facts: dict[str, Any], runs: list[ToyRun]) -> Judgement:
    """Judge the paper's claim by the runs; the reason is a whole sentence.

    The claim has a half for each method: it reaches 100 % within the paper's epochs, or it does
    not. Each seed bears its half out, speaks against it, or (neither there nor trained long
    enough) leaves it open. If all seeds of both methods bear it out, it is as the paper says, with
    a word where the median epoch is more than a factor of two off; if at least half of a method's
    seeds speak against it, it is contradicted; between the two it holds in part.
    """
    horizon = facts["states"]["epochs"]
    halves = []
    for method, said in facts["states"]["methods"].items():
        seeds = [run for run in runs if run.method == method]
        halves.append(_half(said, seeds, horizon))
    counts = [sum(run.method == method for run in runs) for method in facts["states"]["methods"]]
    if any(0 < count < paired.SEEDS for count in counts):
        verdict = Verdict.cannot_be_told
        words = f"Cannot be told from fewer than {paired.SEEDS} seeds of each method"
    elif any(half.against >= 0.5 for half in halves):
        verdict, words = Verdict.contradicted, "Contradicts the paper"
    elif any(half.undecided for half in halves):
        verdict, words = Verdict.not_run, "Undecided"
    elif any(half.against for half in halves):
        verdict, words = Verdict.cannot_be_told, "In part as the paper says"
    else:
        verdict = Verdict.supported
        words = "As the paper says" + "".join(half.timing for half in halves)
    reason = f"{words}: {', '.join(half.words for half in halves)}."
    return Judgement(verdict=verdict, reason=reason)


@dataclass(frozen=True, kw_only=True)
class _Half:
    """Outcome of one method's seeds for its half of the claim."""

    words: str
    against: float = 0.0
    """Share of the seeds that speak against it."""
    undecided: bool = False
    timing: str = ""
    """A word if the median epoch is far from the paper's."""


def _half(said: dict[str, Any], seeds: list[ToyRun], horizon: int) -> _Half:
    """Judge one method's seeds against the paper's half of the claim."""
    if not seeds:
        return _Half(words=f"{said['name']} {NOT_RUN}", undecided=True)
    reached = [first for seed in seeds if (first := seed.first(horizon)) is not None]
    short = sum(seed.first(horizon) is None and seed.trained < horizon for seed in seeds)
    against = len(seeds) - len(reached) - short if said["reaches_100"] else len(reached)
    details, timing, about = [], "", said["epoch_about"]
    if reached:
        median = statistics.median(reached)
        details.append(
            f"median epoch {median:g}" + (f", the paper: about {about}" if about else "")
        )
        if about and not about / 2 <= median <= about * 2:
            timing = ", but sooner" if median < about else ", but later"
    if len(reached) < len(seeds):
        others = [seed.best(horizon) for seed in seeds if seed.first(horizon) is None]
        details.append(f"best {'of the others ' if reached else ''}{percent(max(others))}")
    if short:
        details.append(f"{short} stopped before epoch {horizon}")
    share = (
        f"{said['name']} reaches 100 % within {horizon} epochs "
        f"in {len(reached)} of {len(seeds)} seeds"
    )
    return _Half(
        words=f"{share} ({'; '.join(details)})",
        against=against / len(seeds),
        undecided=short > 0,
        timing=timing,
    )


def _of(runs: list[ToyRun], method: str, seed: int) -> ToyRun | None:
    return next((a for a in runs if (a.method, a.seed) == (method, seed)), None)


def _seeds(facts: dict[str, Any], runs: list[ToyRun], method: str) -> list[int]:
    """Return the experiment's seeds and any others that were run."""
    return sorted({*facts["seeds"]["ours"], *(a.seed for a in runs if a.method == method)})


def _numbers(method: str, seed: int, run: ToyRun | None) -> dict[str, Any]:
    """Return one line of the csv file; accuracies are fractions."""
    values = run.values if run else {}
    return {
        "method": method,
        "seed": seed,
        "first_epoch_at_100": run and run.first(),
        "stays_from_epoch": run and run.stays,
        "final_accuracy": run and run.curve[-1][1],
        "best_accuracy": run and run.best(),
        "test_accuracy": run and run.test,
        "epochs": run and run.trained,
        "trained_parameters": number(values.get("parameters.adapter")),
        "learning_rate": number(values.get("train.learning_rate")),
        "seconds": run and run.seconds,
        "record": run and run.record,
    }


def _words(name: str, row: dict[str, Any]) -> list[str | Shown]:
    """Return the cells of one shown line."""
    if row["record"] is None:
        return [name, str(row["seed"]), NOT_RUN, *[""] * (len(NUMBERS) - 2)]
    record = f"run:{row['record']}"

    def shown(key: str, otherwise: str = "unknown") -> str:
        return otherwise if row[key] is None else f"{row[key]:g}"

    return [
        name,
        Shown(text=str(row["seed"]), link=record),
        shown("first_epoch_at_100", "never"),
        shown("stays_from_epoch", "never"),
        Shown(text=percent(row["final_accuracy"]), link=record),
        percent(row["best_accuracy"]),
        "unknown" if row["test_accuracy"] is None else percent(row["test_accuracy"]),
        shown("epochs"),
        shown("trained_parameters"),
        shown("learning_rate"),
        "unknown" if row["seconds"] is None else f"{row['seconds']:.1f}",
    ]


def _reading(runs: list[ToyRun]) -> str:
    """Explain the columns, including the number of epochs between evaluations."""
    grids = [[epoch for epoch, _ in run.curve] for run in runs]
    steps = sorted({later - sooner for grid in grids for sooner, later in pairwise(grid[:2])})
    every = (
        f" (evaluated every {' or '.join(f'{step:g}' for step in steps)} epochs)" if steps else ""
    )
    first = f"First at 100 %: the first epoch with every training point right{every}"
    return f"{first}; stays from: the first from which it stays so; test: as many other points."


def _choices(facts: dict[str, Any], runs: list[ToyRun]) -> Table:
    """Return a table of settings that the paper leaves open, with the runs' values."""
    methods = facts["states"]["methods"]
    rows = []
    for entry in facts["leaves_open"]:
        cells = []
        for method in methods:
            seeds = [run.values for run in runs if run.method == method]
            cells.append("; ".join(_settings(entry["keys"], seeds)) or NOT_RUN)
        alike = len(set(cells)) == 1 and cells[0] != NOT_RUN
        rows.append(
            [entry["what"], cells[0], *("the same" if alike else cell for cell in cells[1:])]
        )
    columns = ["The paper leaves open", *(f"Here, {said['name']}" for said in methods.values())]
    return Table(
        caption="What the paper leaves open, and what was used here",
        columns=columns,
        lines=[Line(cells=row) for row in rows],
    )


def _settings(keys: list[str], seeds: list[dict[str, Any]]) -> Iterator[str]:
    """Yield `name=value` of every recorded key below `keys`, with all values where seeds differ."""
    names = dict.fromkeys(name for values in seeds for name in values)
    for name in names:
        if not any(name == key or name.startswith(f"{key}.") for key in keys):
            continue
        found = list(dict.fromkeys(str(values.get(name)) for values in seeds))
        if found not in (["None"], ["[]"]) and not name.endswith((".name", ".path", ".metrics")):
            yield f"{name}={' or '.join(found)}"
