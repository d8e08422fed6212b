"""Grades of a language model, and reasons not to compare them with the paper's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report.comparison.run_index import Run, RunIndex
from experiments.results import fastchat


@dataclass(frozen=True, kw_only=True)
class Grade:
    """Average of one judge's grades of one run's answers to a benchmark."""

    benchmark: str
    average: float
    judge: str
    prompts: str | None
    """Fingerprint, as of `questions`; None if the result names none."""
    questions: str | None
    left_out: int
    """Questions without an answer, and judgements that failed."""
    path: Path

    def incomparable_reasons(self, judge: str | None) -> Iterator[str]:
        """Yield the reasons not to compare it with the paper's grade, given by `judge`."""
        if judge is not None and self.judge != judge:
            yield f"judged by {self.judge}"
        if self.prompts != fastchat.PROMPTS:
            yield "prompts other than FastChat's"
        if self.questions != fastchat.QUESTIONS.get(self.benchmark):
            yield "questions or reference answers other than FastChat's"
        if self.left_out:
            yield f"{self.left_out} questions or judgements left out"


def find_grade(index: RunIndex, run: Run, benchmark: str, judge: str | None) -> Grade | None:
    """Return the grade of a run that compares best with the paper's; None without any."""
    grades = [_read(benchmark, one) for one in index.judged(run, benchmark)]
    # A judge of the same name outweighs everything else.
    order = [(one.judge != judge, len([*one.incomparable_reasons(judge)])) for one in grades]
    return grades[order.index(min(order))] if grades else None


def _read(benchmark: str, found: dict[str, Any]) -> Grade:
    content = found["content"]
    parts = {
        name: part if isinstance(part := content.get(name), dict) else {}
        for name in ("prompts", "questions")
    }
    unanswered, failed = parts["questions"].get("unanswered"), content.get("failed")
    return Grade(
        benchmark=benchmark,
        average=found["average"],
        judge=found["judge"],
        prompts=parts["prompts"].get("hash"),
        questions=parts["questions"].get("hash"),
        left_out=(len(unanswered) if isinstance(unanswered, list) else 0)
        + (failed if isinstance(failed, int) else 0),
        path=found["path"],
    )
