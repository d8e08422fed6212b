"""Grades of a language model, and reasons not to compare them with the paper's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report.comparison.run_index import Run, RunIndex
from experiments.results import fastchat

Kind = tuple[str, str | None, str | None]
"""Judge, and the fingerprints of its prompts and questions."""


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

    @property
    def kind(self) -> Kind:
        """What grades must share to be compared with each other."""
        return self.judge, self.prompts, self.questions

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


def find_grade(
    index: RunIndex, run: Run, benchmark: str, judge: str | None, kind: Kind | None = None
) -> Grade | None:
    """Return the grade of a run that compares best with the paper's; None without any.

    Args:
        index: of all runs.
        run: whose answers were graded.
        benchmark: of the questions.
        judge: the paper's.
        kind: the only kind to look for, if given.
    """
    grades = [_read(benchmark, one) for one in index.judged(run, benchmark)]
    grades = [one for one in grades if kind in (None, one.kind)]
    order = [_rank(one, judge) for one in grades]
    return grades[order.index(min(order))] if grades else None


def find_shared_kind(
    index: RunIndex, runs: Iterable[Run], benchmark: str, judge: str | None
) -> Kind | None:
    """Return the kind of grades that most runs have; of equally many the paper's first."""
    grades = [_read(benchmark, one) for run in runs for one in index.judged(run, benchmark)]
    counts = Counter(one.kind for one in grades)
    chosen = min(grades, key=lambda one: (-counts[one.kind], _rank(one, judge)), default=None)
    return None if chosen is None else chosen.kind


def _rank(grade: Grade, judge: str | None) -> tuple[bool, int]:
    """Return a key that sorts grades by how well they compare with the paper's."""
    # A judge of the same name outweighs everything else.
    return grade.judge != judge, len([*grade.incomparable_reasons(judge)])


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
