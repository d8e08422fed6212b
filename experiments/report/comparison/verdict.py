"""Verdicts on our numbers against the paper's: one rule for every table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

RULE = (
    "**Verdicts.** A cell is **reproduced** if ours lies within the paper's printed ± (where none "
    "is printed: if it rounds to the printed number). It is **within noise** if not, but the "
    "difference is at most 2 standard errors and half a unit of the last printed digit. The "
    "standard error of the difference is √(s²/k + s₀²/k₀), with s and s₀ the spreads over our k "
    "and the paper's k₀ runs, and 1.25 times that for medians; where the paper prints no ±, ours "
    "stands in for it. Otherwise it is **not reproduced**, above or below. No verdict is given "
    "(**not comparable**) unless the runs have the paper's pretrained weights, its recipe, its "
    "full splits, its selection of the epoch and at least its number of seeds. Where the "
    "fingerprint of the paper's weights is not known to us, a verdict says **weights unverified**."
)
MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, for normal values."""


class Verdict(Enum):
    """Verdict on a cell or claim."""

    reproduced = "reproduced"
    within_noise = "within noise"
    not_reproduced = "not reproduced"
    supported = "supported"
    contradicted = "contradicted"
    cannot_be_told = "cannot be told"
    not_comparable = "not comparable"
    not_run = "not run"

    @property
    def tone(self) -> str:
        """Name of its color in the style sheet."""
        return self.value.replace(" ", "-")


JUDGED = (Verdict.reproduced, Verdict.within_noise, Verdict.not_reproduced)
"""Verdicts that compare our number with the paper's."""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """Printed number of a cell of the paper, in the table's unit."""

    value: float
    spread: float | None
    digits: int
    """Digits after the decimal point."""

    @property
    def half(self) -> float:
        """Half a unit of the last printed digit."""
        return 0.5 * 10.0**-self.digits

    def text(self, value: float | None = None, sign: bool = False) -> str:
        """Format a number with as many digits as the paper prints."""
        shown = self.value if value is None else value
        return f"{shown:{'+' if sign else ''}.{self.digits}f}".replace("-", "−")


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Statistic over our runs of a cell, in the table's unit."""

    values: Mapping[int, float]
    """By seed."""
    kind: str
    """median or mean."""
    ddof: int
    """0 or 1, for the spread."""
    parts: Mapping[Any, float] = field(default_factory=dict)
    """Every run's value; a seed may have several."""

    @property
    def centre(self) -> float:
        """Median or mean over the seeds."""
        take = statistics.median if self.kind == "median" else statistics.fmean
        return take(self.values.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        if len(self.values) < 2:
            return None
        take = statistics.stdev if self.ddof else statistics.pstdev
        return take(self.values.values())

    @property
    def runs(self) -> int:
        """Number of seeds."""
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict with its reason."""

    verdict: Verdict
    reason: str = ""
    difference: float | None = None
    """Ours minus the paper's."""
    needed: str = ""
    """Differences from which a claim that cannot be told would have been."""


def judge(
    printed: Printed | None,
    ours: Statistic | None,
    runs: int | None,
    incomparable_reasons: Sequence[str] = (),
) -> Judgement:
    """Judge our number of a cell against the paper's.

    Args:
        printed: the paper's cell; None if it has none.
        ours: None if nothing was run.
        runs: number of runs behind the paper's number; None if it does not say.
        incomparable_reasons: reasons not to compare the runs.
    """
    if ours is None:
        return Judgement(verdict=Verdict.not_run)
    if printed is None:
        return Judgement(verdict=Verdict.not_comparable, reason="the paper has no such cell")
    difference = ours.centre - printed.value
    incomparable_reasons = list(incomparable_reasons)
    if runs is None:
        incomparable_reasons.append("the paper does not say over how many runs")
    elif ours.runs < runs:
        incomparable_reasons.append(f"{ours.runs} of {runs} seeds")
    if incomparable_reasons:
        return Judgement(
            verdict=Verdict.not_comparable,
            reason="; ".join(incomparable_reasons),
            difference=difference,
        )
    inside = max(printed.spread or 0.0, printed.half)
    error = standard_error(printed.spread, ours, runs)
    allowed = 2 * error + printed.half
    slack = 1e-9  # of sums of decimal fractions
    if abs(difference) <= inside + slack:
        return Judgement(verdict=Verdict.reproduced, difference=difference)
    reason = f"2 standard errors and rounding: {allowed:.{printed.digits + 1}f}"
    if abs(difference) <= allowed + slack:
        verdict = Verdict.within_noise
    else:
        verdict = Verdict.not_reproduced
        reason = f"{'above' if difference > 0 else 'below'}; {reason}"
    return Judgement(verdict=verdict, reason=reason, difference=difference)


def standard_error(spread: float | None, ours: Statistic, runs: int) -> float:
    """Compute the standard error of the difference of two means or medians of independent runs."""
    own = ours.spread or 0.0
    theirs = own if spread is None else spread
    error = math.sqrt(own**2 / ours.runs + theirs**2 / runs)
    return error * (MEDIAN if ours.kind == "median" else 1.0)
