"""The one kind of error that is the user's to mend: shown as a message, never as a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """A request that cannot be met as asked; `str(error)` says what to change.

    Args:
        summary: one line that says what is wrong.
        problems: every problem found, each naming key, given value and what is allowed.
    """

    def __init__(self, summary: str, problems: Iterable[str] = ()):
        self.summary, self.problems = summary, list(problems)
        super().__init__("\n".join([summary, *(f"  - {problem}" for problem in self.problems)]))


class ConfigError(UserError):
    """The composed configuration is not a run."""


class HubUnavailable(UserError):
    """Neither a local folder, nor the cache, nor the hub holds what the run needs."""


class DataError(UserError):
    """A data folder cannot be read, or does not hold what the task needs."""


class RecordError(UserError):
    """A run folder is damaged, or holds a different run."""


class Unwritable(UserError):
    """The folder of all runs cannot be written to; what lies there can be gone on with later."""


class Occupied(RecordError):
    """Another live process is at work in the folder."""


class Lost(RecordError):
    """Another process took the folder over: whoever meets this must change nothing there."""
