"""Runs of the toy as Figure 7 sees them: a curve, and when it first reaches all points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison.run_index import Evidence, Run, number

KEY = "train/accuracy"


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
    def test(self) -> float | None:
        """Accuracy on other points after the last epoch; None if the record has none."""
        return number(self.values.get("metrics.last.scores.test.accuracy"))

    @property
    def seconds(self) -> float | None:
        """Training and evaluation together; None if the record does not say."""
        return number(self.values.get("time.train_s"))


def find(facts: dict[str, Any], evidence: Evidence) -> tuple[list[Attempt], list[str]]:
    """The runs of the figure, one per method and seed, and a line about each of those left out."""
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
            others.append(f"{evidence.name(run)}: {reason}")
        else:
            attempts[place] = Attempt(
                method=place[0],
                seed=place[1],
                record=evidence.name(run),
                curve=curve,
                values=run.values,
            )
    return list(attempts.values()), others


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


def percent(value: float) -> str:
    """A fraction in percent with one digit, never rounded up: 100.0 % means all of them."""
    return f"{math.floor(value * 1000 + 1e-9) / 10:.1f} %"
