"""From judgements to the scores of a run, with what is known of their noise."""

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
from experiments.judge.cases import Case, Item
from experiments.judge.journal import Line, Standing
from experiments.judge.prompts import Prompts
from experiments.results.stored import read_json

LOWEST, HIGHEST = 1.0, 10.0

# The second one is FastChat's fallback for judges that forget a bracket.
PATTERNS = {
    "[[x]]": re.compile(r"\[\[\s*(\d+(?:\.\d*)?)\s*\]\]"),
    "[x]": re.compile(r"\[(\d+(?:\.\d*)?)\]"),
}


def find_rating(reply: str) -> tuple[float | None, str | None]:
    """The grade and the pattern it was found by; (None, None) if there is no grade to rely on.

    Two different grades in one reply, as in "[[3]] for style, [[8]] for content" or in a quoted
    `row[1]` beside `row[2]`, are no grade (FastChat takes the first); nor is one below 1 or above
    10. What a reasoning model thinks aloud does not count.
    """
    text = _spoken(reply)
    for name, pattern in PATTERNS.items():
        found = {float(number) for number in pattern.findall(text)}
        if len(found) == 1 and LOWEST <= min(found) <= HIGHEST:
            return found.pop(), name
        if found:
            break
    return None, None


def _spoken(reply: str) -> str:
    """A reply without what stands between <think> and </think>; in one pass, however many open."""
    parts, place = [], 0
    while (opened := reply.find("<think>", place)) >= 0:
        closed = reply.find("</think>", opened)
        if closed < 0:
            break
        parts.append(reply[place:opened])
        place = closed + len("</think>")
    return "".join([*parts, reply[place:]])


SCHEMA = 1
Graded = tuple[Item, float]


def summarise(rated: Iterable[tuple[Item, Line]]) -> dict[str, Any]:
    """Scores of one run.

    `average` is the mean over repeats of the mean over all judged turns, as MT-Bench averages;
    `turn_1`, `turn_2` and `categories` likewise over their part, None where there is none.

    `spread` is the standard deviation of that mean between repeats: the judge's noise, None for a
    single repeat. `standard_error` is that of the mean over questions: the choice of questions,
    None for fewer than two.
    """
    graded = [(item, float(line["rating"])) for item, line in rated]
    by_question: dict[int, list[float]] = {}
    for item, grade in graded:
        by_question.setdefault(item.question, []).append(grade)
    means = _repeat_means(graded)
    questions = [statistics.fmean(grades) for grades in by_question.values()]
    categories = sorted({item.category for item, _ in graded})
    return {
        "average": statistics.fmean(means) if means else None,
        "turn_1": _mean([one for one in graded if one[0].turn == 1]),
        "turn_2": _mean([one for one in graded if one[0].turn == 2]),
        "categories": {
            name: _mean([one for one in graded if one[0].category == name]) for name in categories
        },
        "repeats": means,
        "spread": statistics.stdev(means) if len(means) > 1 else None,
        "standard_error": (
            statistics.stdev(questions) / len(questions) ** 0.5 if len(questions) > 1 else None
        ),
    }


def _repeat_means(graded: list[Graded]) -> list[float]:
    by_repeat: dict[int, list[float]] = {}
    for item, grade in graded:
        by_repeat.setdefault(item.repeat, []).append(grade)
    return [statistics.fmean(by_repeat[repeat]) for repeat in sorted(by_repeat)]


def _mean(graded: list[Graded]) -> float | None:
    means = _repeat_means(graded)
    return statistics.fmean(means) if means else None


def record(
    case: Case, standing: Standing, prompts: Prompts, judge: dict[str, Any]
) -> dict[str, Any]:
    """The content of <judge>.json: scores and all that is needed to understand them alone."""
    lines = standing.lines
    dates = sorted(line["date"] for line in lines if line.get("date"))
    return {
        "schema": SCHEMA,
        "benchmark": case.benchmark,
        "judge": {
            **judge,
            "reported": _distinct((line.get("model") or {}).get("reported") for line in lines),
            "hosts": _distinct(line.get("host") for line in lines),
        },
        "scores": summarise(standing.rated),
        "judged": len(standing.rated),
        "failed": len(standing.failed),
        "failures": [
            {"question_id": item.question, "turn": item.turn, "repeat": item.repeat}
            for item in standing.failed
        ],
        "patterns": dict(Counter(line.get("pattern") for _, line in standing.rated)),
        "questions": {
            "number": len({item.question for item in case.items}),
            "source": case.questions.source,
            "hash": case.questions.hash,
            "unanswered": case.unanswered,
            "without_reference": case.questions.without_reference,
        },
        "answers": {"models": case.models, "hash": case.answers_hash},
        "prompts": {"source": prompts.source, "hash": prompts.hash},
        "dates": {"first": dates[0] if dates else None, "last": dates[-1] if dates else None},
        "tokens": {
            name: sum(_number((line.get("usage") or {}).get(name)) for line in lines)
            for name in ("prompt_tokens", "completion_tokens")
        },
    }


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def settle(path: Path, case: Case, standing: Standing, content: dict[str, Any]) -> bool:
    """Writes <judge>.json once no judgement is missing.

    Until then an earlier one stays, of fewer repeats or another prompt, except where it speaks of
    answers that are no longer there. One of the same judgements with more repeats stays for good.

    Returns:
        True if the file was written.
    """
    there = _there(path)
    if not standing.open and case.items:
        if there is not None and _outnumbers(there, content):
            return False
        write_atomically(path, json.dumps(content, indent=2) + "\n")
        return True
    if there is not None and _settings(there)["answers"] != case.answers_hash:
        path.unlink()
    return False


def _there(path: Path) -> dict[str, Any] | None:
    """An earlier <judge>.json; None if there is none, empty if it is damaged."""
    try:
        found = read_json(path)
    except RecordError:
        return {} if os.path.lexists(path) else None
    return found if isinstance(found, dict) else {}


def _outnumbers(there: dict[str, Any], content: dict[str, Any]) -> bool:
    """True if both are of the same answers, questions, prompts and judge, and `there` has more
    repeats."""
    if _settings(there) != _settings(content):
        return False
    return _repeats(there) > _repeats(content)


def _repeats(content: dict[str, Any]) -> int:
    scores = content.get("scores")
    found = scores.get("repeats") if isinstance(scores, dict) else None
    return len(found) if isinstance(found, list) else 0


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """What decides which judgements a score is of."""
    sections = {
        name: part if isinstance(part := content.get(name), dict) else {}
        for name in ("answers", "questions", "prompts", "judge")
    }
    return {
        "answers": sections["answers"].get("hash"),
        "questions": (sections["questions"].get("hash"), sections["questions"].get("unanswered")),
        "prompts": sections["prompts"].get("hash"),
        "judge": (sections["judge"].get("asked"), sections["judge"].get("temperature")),
    }
