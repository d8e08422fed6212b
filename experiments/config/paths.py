"""Paths on the command line, taken literally whatever Hydra's grammar makes of a character.

Hydra rejects `=`, `~`, `#`, quotes, brackets and non-ASCII characters in a value, sweeps over
comma-separated parts, and reads 1e3 as a number. Our own run folders contain `=` and commas.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra.core.override_parser.types import Override, Quote, QuotedString

from experiments.config import override_parser
from experiments.errors import ConfigError

KEYS = (
    *("output", "model.path", "model.tokenizer", "task.path", "task.class_path"),
    *("task.extractor", "task.questions"),
)
"""Keys of the configuration whose values are paths."""


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Quote the paths in overrides where Hydra would misread them.

    Text that names an existing path is one path, commas included. Otherwise commas separate paths,
    as in any sweep.
    """
    return [_quote(argument) for argument in arguments]


def find_output(arguments: Sequence[str], default: str = "outputs") -> str | None:
    """Return the folder of all runs that overrides set; None if it is swept or interpolated."""
    found: str | None = default
    for override in filter(None, map(_parse, arguments)):
        if override.key_or_group == "output":
            value = None if override.is_sweep_override() else override.value()
            found = value if isinstance(value, str) and value and "${" not in value else None
    return found


def _quote(argument: str) -> str:
    key, sign, text = argument.partition("=")
    if key.lstrip("+") not in KEYS or not text:
        return argument
    override = _parse(argument)
    if override is not None and _is_literal(override, text):
        return argument
    parts = [text]
    if "," in text and not _path_exists(text):
        if override is not None:
            return argument
        parts = text.split(",")
        if not all(map(_path_exists, parts)):
            parts = [text]
    return f"{key}{sign}{','.join(map(_to_literal, parts))}"


def _parse(argument: str) -> Override | None:
    try:
        return override_parser.parse(argument)
    except ConfigError:
        return None


def _is_literal(override: Override, text: str) -> bool:
    """Return True if Hydra reads the text literally, as a quoted string, null or a function."""
    if override.is_sweep_override():
        return text.endswith(")") and not _path_exists(text)
    value = override.value()
    return value is None or value == text or (isinstance(value, str) and text[0] in "'\"")


def _to_literal(text: str) -> str:
    return QuotedString(text=os.path.expanduser(text), quote=Quote.single).with_quotes()


def _path_exists(text: str) -> bool:
    return os.path.lexists(os.path.expanduser(text))
