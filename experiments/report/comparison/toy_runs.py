"""Runs of the toy task for Figure 7: the curve, and the first epoch with every point right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison.run_index import Run, RunIndex, number

KEY = "train/accuracy"


@dataclass(frozen=True, kw_only=True)
class ToyRun:
    """One run of the toy task."""

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


def find(facts: dict[str, Any], index: RunIndex) -> tuple[list[ToyRun], list[str]]:
    """Return the figure's runs, one per method and seed, and a line about each run left out."""
    found: dict[tuple[str, int], ToyRun] = {}
    others: list[str] = []
    runs = index.select(model=facts["model"], task=facts["task"], mode="train")
    for run in (run for run in runs if run.record.run.get("method") in facts["states"]["methods"]):
        key = (run.record.run["method"], run.record.run.get("seed"))
        reason = "second run of its seed" if key in found else _unfit(facts, run)
        curve = index.curve(run, KEY) if not reason else []
        if not reason and not curve:
            reason = f"no {KEY} in its history"
        if reason:
            others.append(f"{index.name(run)}: {reason}")
        else:
            found[key] = ToyRun(
                method=key[0],
                seed=key[1],
                record=index.name(run),
                curve=curve,
                values=run.values,
            )
    return list(found.values()), others


def _unfit(facts: dict[str, Any], run: Run) -> str:
    """Return why a toy run does not belong to the figure; empty if it does."""
    wanted = facts["states"]["trained_parameters"]
    if run.record.run.get("profile"):
        return f"a smoke test (profile {run.record.run['profile']})"
    if run.record.run.get("variant"):
        return "another recipe than the figure's"
    if run.record.parameters["adapter"] != wanted:
        return f"trains {run.record.parameters['adapter']:,} parameters instead of {wanted}"
    return ""


def percent(value: float) -> str:
    """Format a fraction as per cent with one digit, never rounded up: 100.0 % means all points."""
    return f"{math.floor(value * 1000 + 1e-9) / 10:.1f} %"
