"""Printed table of scores, and the estimate of pending requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.judge.benchmark_runs import BenchmarkRun, TurnJudgement, list_judgements
from experiments.judge.pool import Judge
from experiments.judge.prompts import Prompts
from experiments.judge.questions import Questions
from experiments.judge.status import JudgingStatus

HEADER = ("Run", "Benchmark", "Average", "Turn 1", "Turn 2", "± judge", "± questions")
COUNTS = ("Judged", "Failed")
CHARACTERS_PER_TOKEN = 4
ANSWER_TOKENS = 1024
"""Longest answer of a run (task.max_new_tokens), for runs that have none yet."""

# The gaps are those of Table 4 between the best and the worst method on one base model.
NOTE = """\
± judge: standard deviation of the average between repeats (--repeats); ± questions: standard error
over questions. Methods of Table 4 on the same base model differ by 0.02 to 0.10 (MT-Bench) and 0.03
to 0.17 (Vicuna): if either ± is as large, the order of two methods is undetermined."""
SINGLE_REPEAT = (
    "A single repeat does not show the noise of the judge; --repeats 3 with a --temperature above\n"
    "0 does, and requests only what is missing at that temperature."
)
ZERO_TEMPERATURE = (
    "At temperature 0 repeats are hardly independent, and ± judge is only a lower bound."
)


def format_table(
    rows: Sequence[tuple[BenchmarkRun, JudgingStatus, dict[str, Any]]], judge: Judge, repeats: int
) -> str:
    """Format the scores of all runs as a table with notes."""
    cells = [HEADER + COUNTS]
    for run, status, scores in rows:
        total = len(run.judgements)
        judged = len(status.rated)
        cells.append(
            (
                str(run.run_dir),
                run.benchmark,
                *(_format_score(scores[name]) for name in ("average", "turn_1", "turn_2")),
                *(_format_score(scores[name]) for name in ("spread", "standard_error")),
                str(judged) if not status.pending else f"{judged} of {total}",
                str(len(status.failed)),
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [NOTE]
    if repeats == 1:
        notes.append(SINGLE_REPEAT)
    elif judge.temperature == 0:
        notes.append(ZERO_TEMPERATURE)
    if any(status.pending for _, status, _ in rows):
        notes.append(
            "`n of m`: incomplete; the average is over judgements so far, and no .json is written."
        )
    unanswered = max((len(run.unanswered) for run, _, _ in rows), default=0)
    if unanswered:
        notes.append(f"--partial: up to {unanswered} questions have no answer and are left out.")
    if any(status.failed for _, status, _ in rows):
        notes.append(
            f"Failed: no grade in {judge.attempts} replies (--attempts); left out of all averages, "
            "not counted as 0."
        )
    return "\n".join([*lines, "", *notes])


def _format_score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Number and size of the pending requests, at four characters per token."""

    requests: int
    tokens_in: int
    tokens_out: int
    measured: bool
    """True if replies are as long as those so far, False if as long as --max-tokens."""

    def format(self, price_in: float | None, price_out: float | None) -> str:
        """Format the estimate; prices are per million tokens."""
        bound = "as long as the replies so far" if self.measured else "upper bound, --max-tokens"
        lines = [
            f"requests to send: {self.requests} (more if replies have no grade)",
            f"tokens in:  {self.tokens_in:,} (at {CHARACTERS_PER_TOKEN} characters per token)",
            f"tokens out: {self.tokens_out:,} ({bound})",
        ]
        if price_in is not None and price_out is not None:
            cost = (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6
            lines.append(f"cost: {cost:.2f} at {price_in:g} in and {price_out:g} out per million")
        return "\n".join(lines)


def estimate_requests(statuses: Sequence[JudgingStatus], judge: Judge) -> Estimate:
    """Estimate the number and size of the pending requests."""
    pending = [judgement for status in statuses for judgement, _ in status.pending]
    replies = [len(entry.get("reply") or "") for one in statuses for entry in one.entries]
    return _estimate(pending, replies, judge)


def estimate_run(
    questions: Iterable[Questions], prompts: Prompts, judge: Judge, repeats: int
) -> Estimate:
    """Estimate the requests of a run that has no answers yet."""
    answer = "x" * ANSWER_TOKENS * CHARACTERS_PER_TOKEN
    pending = [
        judgement
        for benchmark in questions
        for question in benchmark.by_id.values()
        for judgement in list_judgements(question, [answer] * len(question.turns), prompts, repeats)
    ]
    return _estimate(pending, [], judge)


def _estimate(pending: Sequence[TurnJudgement], replies: Sequence[int], judge: Judge) -> Estimate:
    characters = sum(len(message["content"]) for one in pending for message in one.messages)
    tokens_per_reply = (
        sum(replies) / len(replies) / CHARACTERS_PER_TOKEN if replies else judge.max_tokens
    )
    return Estimate(
        requests=len(pending),
        tokens_in=round(characters / CHARACTERS_PER_TOKEN),
        tokens_out=round(len(pending) * tokens_per_reply),
        measured=bool(replies),
    )
