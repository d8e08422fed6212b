"""Types of all fields read from a record, checked once so that tables and figures need not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from experiments.results.stored import find_excesses

LONGEST_NAME, LONGEST_TEXT = 200, 1000
LARGEST = 2**21
"""Bytes of a record: four times one with twenty thousand target modules."""
MANY = 5
"""Reported problems of one record."""


@dataclass(frozen=True)
class Kind:
    """Values that a field may have."""

    name: str
    """Name in error messages, with its article."""
    holds: Callable[[Any], bool]
    required: bool = False
    """False: it may also be null or missing."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _is_pair(value: Any) -> bool:
    return _is_numbers(value) and len(value) == 2


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(one is None or _is_number(one) for one in value)


NAME = Kind("a name", _is_name)
TEXT = Kind("text", lambda value: isinstance(value, str))
BRIEF = Kind("a short text", lambda value: isinstance(value, str) and len(value) <= LONGEST_TEXT)
TEXTS = Kind(
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
)
WHOLE = Kind("an integer", _is_whole)
COUNT = Kind("a count", lambda value: _is_whole(value) and value >= 0)
NUMBER = Kind("a number", _is_number)
AMOUNT = Kind("a number from 0", lambda value: _is_number(value) and value >= 0)
NUMBERS = Kind("a list of numbers", _is_numbers)
INTERVAL = Kind("a pair of numbers", _is_pair)
SECTION = Kind("a section", lambda value: isinstance(value, dict))


def _required(kind: Kind) -> Kind:
    return Kind(kind.name, kind.holds, required=True)


_CHOSEN = {
    "epoch": NUMBER,
    "step": NUMBER,
    "value": NUMBER,
    "interval": INTERVAL,
    "epochs": NUMBERS,
    "scores": SECTION,
    "scores.*": SECTION,
    "scores.*.*": NUMBER,
}
FIELDS: dict[str, Kind] = {
    **{f"run.{key}": _required(NAME) for key in ("model", "task", "method")},
    "run.seed": WHOLE,
    **{
        f"run.{key}": BRIEF
        for key in ("variant", "source", "recipe", "profile", "mode", "experiment")
    },
    **{f"config.{key}": SECTION for key in ("model", "task", "method", "train", "tracking")},
    **{f"config.{key}.name": NAME for key in ("model", "task", "method", "tracking")},
    "config.seed": WHOLE,
    "config.profile": BRIEF,
    "config.model.repo": BRIEF,
    "config.model.attention": TEXTS,
    "config.model.sizes": SECTION,
    "config.method.targets": TEXTS,
    "config.train.precision": TEXT,
    "config.train.select": TEXT,
    "config.train.learning_rate": NUMBER,
    "config.train.batch_size": COUNT,
    **{f"parameters.{key}": _required(COUNT) for key in ("adapter", "stored_bytes")},
    **{f"parameters.{key}": COUNT for key in ("head", "base")},
    "metrics": SECTION,
    **{f"metrics.{rule}": SECTION for rule in ("primary", "best", "last", "heldout")},
    **{f"metrics.primary.{key}": NAME for key in ("name", "split", "select")},
    **{
        f"metrics.{rule}.{key}": kind
        for rule in ("primary", "best", "last", "heldout")
        for key, kind in _CHOSEN.items()
    },
    "adapter": SECTION,
    "adapter.*": TEXT,
    "preflight": SECTION,
    "preflight.warnings": TEXTS,
    "time.started": TEXT,
    "time.finished": TEXT,
    "time.*_s": AMOUNT,
    "memory.peak_gpu": AMOUNT,
    "memory.peak_rss": AMOUNT,
    "environment.weights": TEXT,
    "environment.data": TEXT,
    "environment.versions": SECTION,
    "environment.rows": SECTION,
    "environment.rows.*": COUNT,
    "environment.inputs": SECTION,
    "environment.inputs.*": SECTION,
    "environment.inputs.*.fingerprint": NAME,
    **{f"environment.inputs.*.{key}": COUNT for key in ("files", "bytes")},
    "environment.inputs.*.place": TEXT,
    "status": TEXT,
}
"""Kinds by dotted key; `*` stands for any key, `*_s` for keys with that ending."""


def find_problems(record: dict[str, Any]) -> Iterator[str]:
    """Yield every mistyped or unbounded field of a record."""
    for key, kind in FIELDS.items():
        for place, value in _values(record, key.split("."), ""):
            if value is None and kind.required:
                yield f"no {place}"
            elif value is not None and not kind.holds(value):
                yield f"{place} is not {kind.name}: {_brief(value)}"
    yield from find_excesses(record)


def _values(node: Any, path: list[str], place: str) -> Iterator[tuple[str, Any]]:
    """Yield key and value of every field that a path matches; None for missing fields."""
    if not path:
        yield place, node
        return
    name, *rest = path
    if not isinstance(node, dict):  # said of itself, where it is more than not there
        if node is None:
            yield ".".join([*filter(None, [place]), *path]), None
        return
    ending = name.removeprefix("*")
    names = [key for key in node if key.endswith(ending)] if name != ending else [name]
    for key in names:
        yield from _values(node.get(key), rest, f"{place}.{key}" if place else key)


def _brief(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."
