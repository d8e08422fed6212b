"""Errors that the user can fix: shown as a message, never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Request that cannot be met; `str(error)` says what to change.

    Args:
        summary: one line that says what is wrong.
        problems: every problem found, each naming key, given value and what is allowed.
    """

    def __init__(self, summary: str, problems: Iterable[str] = ()):
        self.summary, self.problems = summary, list(problems)
        super().__init__("\n".join([summary, *(f"  - {problem}" for problem in self.problems)]))


class ConfigError(UserError):
    """Invalid configuration."""


class HubUnavailable(UserError):
    """Weights or data found neither in a local folder, nor in the cache, nor on the hub."""


class DataError(UserError):
    """Data folder that cannot be read, or lacks what the task needs."""


class DataMissing(DataError):
    """File or folder of the user's own data that does not exist."""


class RecordError(UserError):
    """A run folder is damaged, or holds a different run."""


class Unwritable(UserError):
    """Output folder that cannot be written to; its runs can be continued later."""


class Occupied(RecordError):
    """Run folder in use by another live process."""


class Lost(RecordError):
    """Run folder taken over by another process: the former owner must not change anything in it."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" with the closest of the known words, "" if none is close.

    Letters in another order come before one that is missing: `modle` means `model`, not `mode`.
    """
    close = difflib.get_close_matches(word[:80], list(known), n=3)
    if not close:
        return ""
    return f"; did you mean {min(close, key=lambda one: sorted(one) != sorted(word))!r}?"
