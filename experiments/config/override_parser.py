"""Overrides as typed: parsed within limits, and counted before they are expanded."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep

from experiments.config.compose import CONF
from experiments.errors import ConfigError

MAX_LENGTH = 10_000
"""Characters of an override. Hydra's parser takes seconds for longer ones."""
MAX_DEPTH = 30
"""Levels of nested brackets."""
MAX_CELLS = 10_000
"""Runs of a sweep. Hydra composes all of them before the first starts."""
MAX_SHOWN = 200
"""Characters of an override in a message."""


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Override:
    """Parse an override.

    Raises:
        ConfigError: not an override, or beyond the limits.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(
            f"{shorten(text)}: {len(text):,} characters (allowed: {MAX_LENGTH:,}); "
            "put longer values into a file of conf/ or of a folder given by --config-dir"
        )
    if _measure_depth(text) > MAX_DEPTH:
        raise ConfigError(f"{shorten(text)}: more than {MAX_DEPTH} nested brackets")
    if "=" not in text and not text.startswith("~"):
        raise ConfigError(f"{shorten(text)}: not an override, write key=value")
    try:
        return OverridesParser.create().parse_override(text)
    except Exception as error:  # the parser's own, and what its functions and numbers raise
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ConfigError(
            f"{shorten(text)}: not an override, write key=value ({reason}); "
            "quote a value with special characters: 'key=\"…\"'"
        ) from error


def count_values(override: Override) -> int:
    """Count the values of a sweep; 1 if it is not a sweep.

    Raises:
        ConfigError: an infinite range.
    """
    if not override.is_discrete_sweep():
        return 1
    value: Any = override.value()
    if isinstance(value, RangeSweep):
        start, stop, step = (float(bound or 0) for bound in (value.start, value.stop, value.step))
        steps = (stop - start) / step if step else math.inf
        if not math.isfinite(steps):
            raise ConfigError(f"{shorten(override.input_line)}: an infinite range")
        return max(0, math.ceil(steps))
    return len(match_options(override)) if isinstance(value, Glob) else len(value.list)


def match_options(override: Override) -> list[str]:
    """Return the options of conf/ that a glob matches."""
    folder = CONF / override.key_or_group
    pattern: Any = override.value()
    return pattern.filter(sorted(path.stem for path in folder.glob("*.yaml")))


def expand_sweep(override: Override, most: int | None = None) -> list[str]:
    """Expand a sweep into one override per value; leave others as they are.

    Args:
        override: any but a search, whose values are not known in advance.
        most: number of values; None for all.

    Raises:
        ConfigError: no values, or too many.
    """
    if not override.is_sweep_override():
        return [override.input_line or ""]
    number = count_values(override)
    if number == 0:
        raise ConfigError(f"{shorten(override.input_line)}: has no values")
    if number > MAX_CELLS:
        raise ConfigError(
            f"{shorten(override.input_line)}: {number:,} values "
            f"(allowed: {MAX_CELLS:,} runs in a sweep)"
        )
    return [f"{override.get_key_element()}={one}" for one in islice(_list_values(override), most)]


def shorten(text: str | None, most: int = MAX_SHOWN) -> str:
    """Shorten an override, or a library's message about it, by leaving out its middle."""
    text = text or ""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def _list_values(override: Override) -> Iterator[str]:
    if isinstance(override.value(), Glob):
        return iter(match_options(override))
    return override.sweep_string_iterator()


def _measure_depth(text: str) -> int:
    """Return the deepest nesting of brackets."""
    depth = deepest = 0
    for letter in text:
        if letter in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]}":
            depth -= 1
    return deepest
