"""Cost of experiments: what finished runs took, and a forecast of the others."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.report.comparison import reference
from experiments.report.render.document import Heading, Line, Page, Prose, Table
from experiments.report.run_state import RunState, State

MINUTE, HOUR, DAY = 60, 3600, 86400
INTRODUCTION = (
    "GPU hours are of all runs, on {name}: **estimated, not measured** ({accuracy}; "
    "`experiments/reference/costs.yaml`). The time left takes finished runs of the same base model "
    "and task where there are some."
)


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """Cell of an experiment over its seeds."""

    name: str
    key: tuple[str, str, str]
    """Model, task and method: similar cells take similar times."""
    runs: dict[int, RunState]
    problem: str = ""
    forecast: float | None = None
    """Estimated GPU seconds of one run; None if nothing is known."""
    trials: int = 1
    """Runs behind each state: a search makes several."""

    @property
    def number(self) -> int:
        """Number of runs, trials included."""
        return len(self.runs) * self.trials


@dataclass(kw_only=True)
class TimeLeft:
    """Seconds of the unfinished runs, one after the other."""

    measured: float = 0.0
    """Of runs like finished ones."""
    estimated: float = 0.0
    """Of runs that only the forecast knows, on its GPU."""
    unknown: int = 0
    """Runs of which neither is known."""


def time_left(found: Sequence[StatusRow]) -> TimeLeft:
    """Return the time of all unfinished runs.

    Each takes the mean of the finished runs of its cell, else of its base model and task; another
    model's seconds say nothing, so it is the forecast otherwise.
    """

    def mean(rows: Sequence[StatusRow]) -> float | None:
        spent = [one.seconds for row in rows for one in row.runs.values() if one.seconds]
        return statistics.fmean(spent) if spent else None

    total = TimeLeft()
    for row in found:
        like = [other for other in found if other.key[:2] == row.key[:2]]
        each = next((one for one in (mean([row]), mean(like)) if one is not None), None)
        for one in row.runs.values():
            if one.state is State.done:
                continue
            needed = one.left if one.left is not None else each
            missing = row.trials - one.finished
            if needed is not None:
                total.measured += needed * missing
            elif row.forecast:
                total.estimated += row.forecast * missing
            else:
                total.unknown += missing
    return total


def format_left(found: Sequence[StatusRow], workers: int) -> str:
    """Format the time left: measured, estimated and unknown parts apart."""
    left, parts = time_left(found), []
    if left.measured:
        several = f", {duration(left.measured / workers)} on the {workers} running"
        parts.append(
            f"about {duration(left.measured)} left on one worker{several if workers > 1 else ''}"
        )
    if left.estimated:
        gpu = reference.costs()["gpu"]["name"]
        more = " more" if parts else ""
        parts.append(f"about {duration(left.estimated)}{more} on {gpu}, estimated, not measured")
    if left.unknown:
        parts.append(
            f"time left unknown for {left.unknown} runs, no similar run is done"
            if parts
            else "time left unknown, no similar run is done"
        )
    return "; ".join(parts)


def introduce() -> Prose:
    """Say what the GPU hours rest on."""
    return Prose(INTRODUCTION.format(**reference.costs()["gpu"]))


def show(boards: Mapping[str, Sequence[StatusRow]]) -> Page:
    """Build the page of the costs of every experiment, and of the authors' own."""
    authors = reference.costs()["authors"]
    tasks = list(next(iter(authors["memory"].values())))
    names = {"lora": "LoRA, r=8", "fourierft": "FourierFT, n=1000"}
    memory = Table(
        caption="Peak memory of the authors' training",
        columns=["MB", *tasks],
        lines=[
            Line(cells=[said, *(str(authors["memory"][method][task]) for task in tasks)])
            for method, said in names.items()
        ],
        numbers=tasks,
    )
    minutes = Table(
        caption="Minutes of the authors' training",
        columns=["Minutes", "LoRA", "FourierFT"],
        lines=[
            Line(cells=[task, *(str(spent[method]) for method in names)])
            for task, spent in authors["minutes"].items()
        ],
        numbers=["LoRA", "FourierFT"],
    )
    return Page(
        name="costs",
        title="Cost of every table and figure",
        blocks=[
            introduce(),
            tabulate(boards),
            Prose(
                "Rows of QNLI and QQP have a guessed length. Table 4 and Figure 1 also need 240 "
                "grades of a run's answers: `make table4 QUESTIONS=FOLDER` prints their cost. "
                "`python -m experiments.report status` shows what is left."
            ),
            Heading("The authors' own costs"),
            Prose(
                f"Peak memory on one {authors['gpu']}, RoBERTa-large (README of "
                f"experiments/GLUE in Chaos96/fourierft). Not said: {authors['memory']['open']}."
            ),
            memory,
            Prose(
                f"LLaMA-2 7B on one {authors['gpu']}, one epoch, batches of 1, bf16 (its issue 6)."
            ),
            minutes,
        ],
    )


def tabulate(boards: Mapping[str, Sequence[StatusRow]]) -> Table:
    """Return a table of every experiment's cells, runs, trials and GPU hours."""
    lines = []
    for name, rows in boards.items():
        trials = max((row.trials for row in rows), default=1)
        lines.append(
            Line(
                cells=[
                    name,
                    str(len(rows)),
                    str(trials) if trials > 1 else "",
                    f"{sum(row.number for row in rows):,}",
                    _format_hours(rows),
                ]
            )
        )
    return Table(
        caption="Cells, runs and GPU hours of each experiment",
        columns=["Experiment", "Cells", "Trials", "Runs", "GPU hours"],
        lines=lines,
        numbers=["Cells", "Trials", "Runs", "GPU hours"],
    )


def _format_hours(rows: Sequence[StatusRow]) -> str:
    known = [row.forecast * row.number for row in rows if row.forecast is not None]
    if len(known) < len(rows):
        return "unknown"
    hours = sum(known) / HOUR
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def duration(seconds: float) -> str:
    """Format a duration as one number and unit."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
