"""Figure 7: who fits eight classes of points with 128 trained numbers, after how many epochs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from experiments.report import curves
from experiments.report.evidence import Evidence, Run
from experiments.report.page import NOT_RUN, Page, heading, table, troubles

KEY = "train/accuracy"
NUMBERS = (
    *("Seed", "First at 100 %", "Stays from", "Final", "Best"),
    *("Epochs", "Numbers", "Learning rate", "Seconds"),
)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One run of the toy."""

    method: str
    seed: int
    record: str
    """Its folder, relative to the output folder."""
    curve: list[tuple[float, float]]
    """(epoch, training accuracy as a fraction) of every evaluation."""
    values: dict[str, Any]
    """The record with dotted keys."""

    def first(self, epochs: float = math.inf) -> float | None:
        """First evaluated epoch with every point right, up to `epochs`; None if there is none."""
        return next((epoch for epoch, value in self.curve if value >= 1 and epoch <= epochs), None)

    @property
    def stays(self) -> float | None:
        """First evaluated epoch from which on every point is right; None if not at the end."""
        since = None
        for epoch, value in reversed(self.curve):
            if value < 1:
                break
            since = epoch
        return since

    def best(self, epochs: float = math.inf) -> float:
        """Highest accuracy of any evaluation up to `epochs`; 0 if there is none."""
        return max((value for epoch, value in self.curve if epoch <= epochs), default=0.0)

    @property
    def trained(self) -> float:
        """Epochs trained."""
        return self.curve[-1][0]

    @property
    def seconds(self) -> float | None:
        """Training and evaluation together; None if the record does not say."""
        return self.values.get("time.train_s")


def show(facts: dict[str, Any], evidence: Evidence) -> Page:
    """Sets the curves and epochs of every recorded seed beside the paper's words."""
    attempts, left_out = _attempts(facts, evidence)
    states = facts["states"]
    raw = [
        _numbers(method, seed, _of(attempts, method, seed))
        for method in states["methods"]
        for seed in _seeds(facts, attempts, method)
    ]
    shown = [_words(states["methods"][row["method"]]["name"], row) for row in raw]
    decided = verdict(facts, attempts)
    lines = [
        *heading(facts),
        f"**{decided}**",
        "",
        *table(("Method", *NUMBERS), shown, NUMBERS),
        "",
    ]
    lines += [_reading(attempts)]
    if any(row["record"] is None for row in raw):
        lines += ["", f"Not run: `{facts['run']}`"]
    lines += ["", "![Training accuracy over epochs](figure7.png)", ""]
    lines += [*_choices(facts, attempts), *left_out, *troubles(evidence.damaged)]
    drawn = {
        method: [attempt.curve for attempt in attempts if attempt.method == method]
        for method in states["methods"]
    }
    caption = [f"Paper: {facts['claim']}", decided]
    draw = partial(curves.draw, facts=facts, drawn=drawn, caption=caption)
    return Page(text="\n".join(lines) + "\n", rows=raw, draw=draw)


def verdict(facts: dict[str, Any], attempts: list[Attempt]) -> str:
    """What the runs say about the paper's claim, in words.

    The claim has a half for each method: it reaches 100 % within the paper's epochs, or it does
    not. Each seed bears its half out, speaks against it, or (neither there nor trained long
    enough) leaves it open. If all seeds of both methods bear it out, it is as the paper says, with
    a word where the median epoch is more than a factor of two off; if at least half of a method's
    seeds speak against it, it is contradicted; between the two it holds in part.
    """
    horizon = facts["states"]["epochs"]
    halves = []
    for method, said in facts["states"]["methods"].items():
        seeds = [attempt for attempt in attempts if attempt.method == method]
        halves.append(_half(said, seeds, horizon))
    if any(half.against >= 0.5 for half in halves):
        word = "Contradicts the paper"
    elif any(half.undecided for half in halves):
        word = "Undecided"
    elif any(half.against for half in halves):
        word = "In part as the paper says"
    else:
        word = "As the paper says" + "".join(half.timing for half in halves)
    return f"{word}: {', '.join(half.words for half in halves)}."


@dataclass(frozen=True, kw_only=True)
class _Half:
    """What the seeds of one method say about its half of the claim."""

    words: str
    against: float = 0.0
    """Share of the seeds that speak against it."""
    undecided: bool = False
    timing: str = ""
    """A word if the median epoch is far from the paper's."""


def _half(said: dict[str, Any], seeds: list[Attempt], horizon: int) -> _Half:
    """Weighs one method's seeds against what the paper says of it."""
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


def percent(value: float) -> str:
    """A fraction in percent with one digit, never rounded up: 100.0 % means all of them."""
    return f"{math.floor(value * 1000 + 1e-9) / 10:.1f} %"


def _attempts(facts: dict[str, Any], evidence: Evidence) -> tuple[list[Attempt], list[str]]:
    """The runs of the figure, one per method and seed, and Markdown lines about those left out."""
    attempts: dict[tuple[str, int], Attempt] = {}
    others: list[str] = []
    runs = evidence.select(model=facts["model"], task=facts["task"], mode="train")
    for run in (run for run in runs if run.record.run.get("method") in facts["states"]["methods"]):
        place = (run.record.run["method"], run.record.run.get("seed"))
        reason = "second run of its seed" if place in attempts else _unfit(facts, run)
        curve = evidence.curve(run, KEY) if not reason else []
        if not reason and not curve:
            reason = f"no {KEY} in its history"
        if reason:
            others.append(f"- {evidence.name(run)}: {reason}")
        else:
            attempts[place] = Attempt(
                method=place[0],
                seed=place[1],
                record=evidence.name(run),
                curve=curve,
                values=run.values,
            )
    return list(attempts.values()), [
        "",
        "Other runs of the toy, not counted here:",
        "",
        *others,
    ] if others else []


def _unfit(facts: dict[str, Any], run: Run) -> str:
    """Why a run of the toy is not the figure's; empty if it is."""
    wanted = facts["states"]["trained_numbers"]
    if run.record.run.get("profile"):
        return f"a rehearsal (profile {run.record.run['profile']})"
    if run.record.run.get("variant"):
        return "another recipe than the figure's"
    if run.record.parameters["adapter"] != wanted:
        return f"trains {run.record.parameters['adapter']:,} numbers instead of {wanted}"
    return ""


def _of(attempts: list[Attempt], method: str, seed: int) -> Attempt | None:
    return next((a for a in attempts if (a.method, a.seed) == (method, seed)), None)


def _seeds(facts: dict[str, Any], attempts: list[Attempt], method: str) -> list[int]:
    """The experiment's seeds and whatever else was run."""
    return sorted({*facts["seeds"]["ours"], *(a.seed for a in attempts if a.method == method)})


def _numbers(method: str, seed: int, attempt: Attempt | None) -> dict[str, Any]:
    """One line of the csv file; accuracies are fractions."""
    values = attempt.values if attempt else {}
    return {
        "method": method,
        "seed": seed,
        "first_epoch_at_100": attempt and attempt.first(),
        "stays_from_epoch": attempt and attempt.stays,
        "final_accuracy": attempt and attempt.curve[-1][1],
        "best_accuracy": attempt and attempt.best(),
        "epochs": attempt and attempt.trained,
        "trained_numbers": values.get("parameters.adapter"),
        "learning_rate": values.get("train.learning_rate"),
        "seconds": attempt and attempt.seconds,
        "record": attempt and attempt.record,
    }


def _words(name: str, row: dict[str, Any]) -> list[str]:
    """The cells of one shown line."""
    if row["record"] is None:
        return [name, str(row["seed"]), NOT_RUN, *[""] * (len(NUMBERS) - 2)]

    def shown(key: str, otherwise: str = "unknown") -> str:
        return otherwise if row[key] is None else f"{row[key]:g}"

    return [
        name,
        str(row["seed"]),
        shown("first_epoch_at_100", "never"),
        shown("stays_from_epoch", "never"),
        percent(row["final_accuracy"]),
        percent(row["best_accuracy"]),
        shown("epochs"),
        shown("trained_numbers"),
        shown("learning_rate"),
        "unknown" if row["seconds"] is None else f"{row['seconds']:.1f}",
    ]


def _reading(attempts: list[Attempt]) -> str:
    """How to read the columns, with the distance of the evaluations in epochs."""
    grids = [[epoch for epoch, _ in attempt.curve] for attempt in attempts]
    steps = sorted({later - sooner for grid in grids for sooner, later in pairwise(grid[:2])})
    every = (
        f" (evaluated every {' or '.join(f'{step:g}' for step in steps)} epochs)" if steps else ""
    )
    first = f"First at 100 %: the first epoch with every training point right{every}"
    return f"{first}; stays from: the first from which it stays so."


def _choices(facts: dict[str, Any], attempts: list[Attempt]) -> list[str]:
    """A table of what the paper leaves open and what the runs used."""
    methods = facts["states"]["methods"]
    rows = []
    for entry in facts["leaves_open"]:
        cells = []
        for method in methods:
            seeds = [attempt.values for attempt in attempts if attempt.method == method]
            cells.append("; ".join(_settings(entry["keys"], seeds)) or NOT_RUN)
        alike = len(set(cells)) == 1 and cells[0] != NOT_RUN
        rows.append(
            [entry["what"], cells[0], *("the same" if alike else cell for cell in cells[1:])]
        )
    columns = ["The paper leaves open", *(f"Here, {said['name']}" for said in methods.values())]
    return table(columns, rows)


def _settings(keys: list[str], seeds: list[dict[str, Any]]) -> Iterator[str]:
    """`name=value` of every key below `keys` in the records, with all values where seeds differ."""
    names = dict.fromkeys(name for values in seeds for name in values)
    for name in names:
        if not any(name == key or name.startswith(f"{key}.") for key in keys):
            continue
        found = list(dict.fromkeys(str(values.get(name)) for values in seeds))
        if found not in (["None"], ["[]"]) and not name.endswith((".name", ".path", ".metrics")):
            yield f"{name}={' or '.join(found)}"
