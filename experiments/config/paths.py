"""Paths on the command line: taken as they are typed, whatever Hydra's grammar makes of a sign.

Hydra refuses `=`, `~`, `#`, quotes, brackets and all that is not ASCII in a value, sweeps over what
a comma parts, and reads 1e3 as a number. Our own run folders hold `=` and commas.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra.core.override_parser.types import Override, Quote, QuotedString

from experiments.config import words
from experiments.errors import ConfigError

KEYS = (
    *("output", "model.path", "model.tokenizer", "task.path", "task.class_path"),
    *("task.extractor", "task.questions"),
)
"""Keys of the configuration whose values are paths."""


def quote(arguments: Sequence[str]) -> list[str]:
    """Overrides with their paths in quotes where Hydra would take them for something else.

    What is there is one path, commas and all. Otherwise a comma parts several, as in any sweep.
    """
    return [_quoted(argument) for argument in arguments]


def output_of(arguments: Sequence[str], default: str = "outputs") -> str | None:
    """The folder of all runs that overrides ask for; None where it is not one that is known yet."""
    found = default
    for override in filter(None, map(_parsed, arguments)):
        if override.key_or_group == "output":
            value = None if override.is_sweep_override() else override.value()
            found = value if isinstance(value, str) and value and "${" not in value else None
    return found


def _quoted(argument: str) -> str:
    key, sign, text = argument.partition("=")
    if key.lstrip("+") not in KEYS or not text:
        return argument
    override = _parsed(argument)
    if override is not None and _as_typed(override, text):
        return argument
    parts = [text]
    if "," in text and not _exists(text):
        if override is not None:
            return argument
        parts = text.split(",")
        if not all(map(_exists, parts)):
            parts = [text]
    return f"{key}{sign}{','.join(map(_literal, parts))}"


def _parsed(argument: str) -> Override | None:
    try:
        return words.parse(argument)
    except ConfigError:
        return None


def _as_typed(override: Override, text: str) -> bool:
    """True where Hydra takes the text itself, what quotes hold, nothing, or a function's values."""
    if override.is_sweep_override():
        return text.endswith(")") and not _exists(text)
    value = override.value()
    return value is None or value == text or (isinstance(value, str) and text[0] in "'\"")


def _literal(text: str) -> str:
    return QuotedString(text=os.path.expanduser(text), quote=Quote.single).with_quotes()


def _exists(text: str) -> bool:
    return os.path.lexists(os.path.expanduser(text))
