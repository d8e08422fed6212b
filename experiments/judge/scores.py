"""Grades of replies, and scores of runs with their noise."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.files import write_atomically
from experiments.judge.benchmark_runs import BenchmarkRun, TurnJudgement
from experiments.judge.journal import Entry
from experiments.judge.prompts import Prompts
from experiments.judge.status import JudgingStatus
from experiments.results.stored import read_json

MIN_GRADE, MAX_GRADE = 1.0, 10.0

# The second pattern is FastChat's fallback for judges that forget a bracket.
PATTERNS = {
    "[[x]]": re.compile(r"\[\[\s*(\d+(?:\.\d*)?)\s*\]\]"),
    "[x]": re.compile(r"\[(\d+(?:\.\d*)?)\]"),
}


def find_rating(reply: str) -> tuple[float | None, str | None]:
    """Return the grade of a reply and its pattern, or (None, None) without a reliable grade.

    Two different grades, as in "[[3]] for style, [[8]] for content" or in a quoted `row[1]` and
    `row[2]`, do not count (FastChat takes the first), nor do grades below 1 or above 10. Text
    between <think> and </think> is ignored.
    """
    text = _remove_thinking(reply)
    for name, pattern in PATTERNS.items():
        found = {float(number) for number in pattern.findall(text)}
        if len(found) == 1 and MIN_GRADE <= min(found) <= MAX_GRADE:
            return found.pop(), name
        if found:
            break
    return None, None


def _remove_thinking(reply: str) -> str:
    # One pass instead of a pattern, whose time would be quadratic in the number of tags.
    parts, start = [], 0
    while (opened := reply.find("<think>", start)) >= 0:
        closed = reply.find("</think>", opened)
        if closed < 0:
            break
        parts.append(reply[start:opened])
        start = closed + len("</think>")
    return "".join([*parts, reply[start:]])


SCHEMA = 1
Graded = tuple[TurnJudgement, float]


def summarize(rated: Iterable[tuple[TurnJudgement, Entry]]) -> dict[str, Any]:
    """Return the scores of one run.

    `average` is the mean over all judged turns, averaged over repeats, as in MT-Bench. `turn_1`,
    `turn_2` and `categories` are the same for a subset, None if it is empty.

    `spread` is the standard deviation of the mean between repeats (noise of the judge), None for a
    single repeat. `standard_error` is the standard error of the mean over questions (choice of
    questions), None for fewer than two.
    """
    graded = [(judgement, float(entry["rating"])) for judgement, entry in rated]
    by_question: dict[int, list[float]] = {}
    for judgement, grade in graded:
        by_question.setdefault(judgement.question, []).append(grade)
    means = _average_repeats(graded)
    questions = [statistics.fmean(grades) for grades in by_question.values()]
    categories = sorted({judgement.category for judgement, _ in graded})
    return {
        "average": statistics.fmean(means) if means else None,
        "turn_1": _average([one for one in graded if one[0].turn == 1]),
        "turn_2": _average([one for one in graded if one[0].turn == 2]),
        "categories": {
            name: _average([one for one in graded if one[0].category == name])
            for name in categories
        },
        "repeats": means,
        "spread": statistics.stdev(means) if len(means) > 1 else None,
        "standard_error": (
            statistics.stdev(questions) / len(questions) ** 0.5 if len(questions) > 1 else None
        ),
    }


def _average_repeats(graded: list[Graded]) -> list[float]:
    by_repeat: dict[int, list[float]] = {}
    for judgement, grade in graded:
        by_repeat.setdefault(judgement.repeat, []).append(grade)
    return [statistics.fmean(by_repeat[repeat]) for repeat in sorted(by_repeat)]


def _average(graded: list[Graded]) -> float | None:
    means = _average_repeats(graded)
    return statistics.fmean(means) if means else None


def build_result(
    run: BenchmarkRun, status: JudgingStatus, prompts: Prompts, judge: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of <judge>.json: scores and their provenance."""
    entries = status.entries
    dates = sorted(entry["date"] for entry in entries if entry.get("date"))
    return {
        "schema": SCHEMA,
        "benchmark": run.benchmark,
        "judge": {
            **judge,
            "reported": _sort_distinct((one.get("model") or {}).get("reported") for one in entries),
            "hosts": _sort_distinct(one.get("host") for one in entries),
        },
        "scores": summarize(status.rated),
        "judged": len(status.rated),
        "failed": len(status.failed),
        "failures": [
            {"question_id": one.question, "turn": one.turn, "repeat": one.repeat}
            for one in status.failed
        ],
        "patterns": dict(Counter(entry.get("pattern") for _, entry in status.rated)),
        "questions": {
            "number": len({one.question for one in run.judgements}),
            "source": run.questions.source,
            "hash": run.questions.hash,
            "unanswered": run.unanswered,
            "without_reference": run.questions.without_reference,
        },
        "answers": {"models": run.models, "hash": run.answers_hash},
        "prompts": {"source": prompts.source, "hash": prompts.hash},
        "dates": {"first": dates[0] if dates else None, "last": dates[-1] if dates else None},
        "tokens": {
            name: sum(_count_tokens((one.get("usage") or {}).get(name)) for one in entries)
            for name in ("prompt_tokens", "completion_tokens")
        },
    }


def _sort_distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})


def _count_tokens(value: Any) -> int:
    return value if isinstance(value, int) else 0


def write_result(
    path: Path, run: BenchmarkRun, status: JudgingStatus, result: dict[str, Any]
) -> bool:
    """Write <judge>.json if no judgement is pending.

    Until then an earlier result (fewer repeats, another prompt) stays, unless its answers have
    changed. An earlier result of the same judgements with more repeats is never replaced.

    Returns:
        True if the file was written.
    """
    earlier = _read_result(path)
    if not status.pending and run.judgements:
        if earlier is not None and _has_more_repeats(earlier, result):
            return False
        write_atomically(path, json.dumps(result, indent=2) + "\n")
        return True
    if earlier is not None and _select_settings(earlier)["answers"] != run.answers_hash:
        path.unlink()
    return False


def _read_result(path: Path) -> dict[str, Any] | None:
    """Read an earlier <judge>.json; None if there is none, empty if it is damaged."""
    try:
        result = read_json(path)
    except RecordError:
        return {} if os.path.lexists(path) else None
    return result if isinstance(result, dict) else {}


def _has_more_repeats(earlier: dict[str, Any], result: dict[str, Any]) -> bool:
    """Return True if `earlier` has the same settings and more repeats."""
    if _select_settings(earlier) != _select_settings(result):
        return False
    return _count_repeats(earlier) > _count_repeats(result)


def _count_repeats(result: dict[str, Any]) -> int:
    scores = result.get("scores")
    repeats = scores.get("repeats") if isinstance(scores, dict) else None
    return len(repeats) if isinstance(repeats, list) else 0


def _select_settings(result: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a result that identifies its judgements."""
    sections = {
        name: part if isinstance(part := result.get(name), dict) else {}
        for name in ("answers", "questions", "prompts", "judge")
    }
    return {
        "answers": sections["answers"].get("hash"),
        "questions": (sections["questions"].get("hash"), sections["questions"].get("unanswered")),
        "prompts": sections["prompts"].get("hash"),
        "judge": (sections["judge"].get("asked"), sections["judge"].get("temperature")),
    }
