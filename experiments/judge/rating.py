"""The grade in a judge's reply."""

from __future__ import annotations

import re

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
