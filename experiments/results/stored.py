"""Readers of untrusted files: without blocking, within bounds, as plain data.

Files in an output folder may be damaged, of another program, or malicious. A pipe would block
forever, a device never ends, a YAML alias can stand for gigabytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import RecordError

LARGEST = 64 * 2**20
"""Largest size of a file that is read whole, in bytes."""
LARGEST_YAML = 2**20
MAX_DEPTH = 32
"""Levels of nesting; a configuration has five."""
MAX_JSON_DEPTH = 200
"""Levels of nesting of any JSON, which a writer could still write."""
MAX_INTEGER = 2**63
"""Magnitude of an integer."""
MAX_FLOAT = 1e100
"""Magnitude of a float: its square is finite too."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters and lone surrogates: no terminal and no UTF-8 file should get them."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Read a regular file, or the target of a link to one.

    Raises:
        RecordError: not a regular file, too large, or unreadable.
    """
    try:
        _check(path, os.stat(path), largest)
        # Since the check it may have become a pipe, which must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor), largest)
            content = file.read(largest + 1) or b""
    except OSError as error:
        raise RecordError(f"{path}: damaged, cannot be read ({error.strerror})") from error
    if len(content) > largest:
        raise RecordError(f"{path}: damaged, more than {largest:,} bytes")
    return content


def find_entries(root: Path, name: str) -> list[Path]:
    """Return every entry named `name` below a folder, in path order, including broken links."""
    return sorted(
        Path(folder, name)
        for folder, folders, files in os.walk(root)
        if name in files or name in folders
    )


def check_file(path: Path, largest: int = LARGEST) -> None:
    """Raise RecordError unless `path` leads to a regular file of at most `largest` bytes."""
    try:
        _check(path, os.stat(path), largest)
    except OSError as error:
        raise RecordError(f"{path}: damaged, cannot be read ({error.strerror})") from error


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Read a regular file as UTF-8; raise RecordError as `read_bytes` does."""
    try:
        return read_bytes(path, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: damaged, not UTF-8 ({error.reason})") from error


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Read a JSON file; raise RecordError as `read_bytes` does, or if it is not JSON."""
    content = read_bytes(path, largest)
    try:
        return parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: damaged, not JSON ({error})") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raise ValueError if that fails, also for deep nesting."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    level, depth = [found], 0
    while level := [item for node in level for item in _items(node)]:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError("nested too deeply")
    return found


def _items(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def read_yaml(path: Path) -> Any:
    """Read a YAML file without aliases; raise RecordError as `read_bytes` does, or if invalid."""
    text = read_text(path, LARGEST_YAML)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("an alias, which a configuration does not have")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("nested too deeply")
        return yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(f"{path}: damaged, not YAML ({reason})") from error


def make_printable(text: Any) -> str:
    """Return text on one line, with control characters and lone surrogates escaped."""
    line = " ".join(str(text).split())
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], line)


def find_excesses(value: Any, key: str = "", depth: int = 0) -> Iterator[str]:
    """Yield every value of parsed JSON beyond the bounds that later arithmetic and writing need."""
    if isinstance(value, (dict, list)):
        if depth == MAX_DEPTH:
            yield f"{key or 'it'} is nested more than {MAX_DEPTH} deep"
            return
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in pairs:
            if isinstance(name, str) and _UNPRINTABLE.search(name):
                yield f"{key or 'it'} has the key {name!r}"
            yield from find_excesses(item, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, str):
        if found := _UNPRINTABLE.search(value):
            yield f"{key} holds the character {found[0]!r}"
    elif isinstance(value, float):
        if not math.isfinite(value) or abs(value) > MAX_FLOAT:
            yield f"{key} is {value!r}"
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        yield f"{key} is an integer of {value.bit_length()} bits"


def _check(path: Path, found: os.stat_result, largest: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise RecordError(f"{path}: damaged, not a regular file")
    if found.st_size > largest:
        raise RecordError(f"{path}: damaged, {found.st_size:,} bytes (at most {largest:,})")
