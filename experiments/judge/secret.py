"""API key of a judge's server, hidden from files and messages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html.entities import html5

HIDDEN = "***"
MIN_LENGTH = 8
"""Shorter keys may be words of a reply, and are hidden in messages only."""
MIN_PREFIX_LENGTH = 12
"""From this length on, everything that begins like the key is hidden in messages, since servers
often quote part of a key."""


class Secret:
    """Hides a key in all forms that a server may quote.

    These are the literal key, escaped characters as in JSON, JavaScript, URLs or HTML (also twice,
    as in JSON within JSON), hexadecimal, and base64 at any alignment.

    Args:
        key: API key; None hides nothing.
    """

    def __init__(self, key: str | None):
        self._pattern = self._prefix_pattern = None
        if key:
            self._pattern = re.compile("|".join([_build_pattern(key), *_encoded_patterns(key)]))
        if key and len(key) >= MIN_PREFIX_LENGTH:
            self._prefix_pattern = re.compile(_build_pattern(key[:6]) + r"\S*")
        self._in_messages_only = key is None or len(key) < MIN_LENGTH

    def hide_in_reply(self, text: str) -> str:
        """Return a reply without the key."""
        return text if self._in_messages_only else self._pattern.sub(HIDDEN, text)

    def hide_in_message(self, text: str) -> str:
        """Return a message without control characters, the key and what begins like it."""
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        for pattern in (self._pattern, self._prefix_pattern):
            text = text if pattern is None else pattern.sub(HIDDEN, text)
        return text


def _build_pattern(key: str) -> str:
    """Return the pattern of a key with literal or escaped characters.

    Repetitions are bounded, which bounds the time for every text.
    """
    return "".join(f"(?:{'|'.join(_escape_patterns(letter))})" for letter in key)


def _escape_patterns(letter: str) -> Iterator[str]:
    """Yield the patterns of a character, escaped and literal."""
    code = ord(letter)
    yield rf"(?i:\\{{1,8}}(?:u\{{?0{{0,6}}|x){code:02x}\}}?)"
    yield rf"(?i:%(?:25){{0,4}}{code:02x})"
    yield rf"(?i:&(?:amp;){{0,4}}#(?:0{{0,6}}{code}|x0{{0,6}}{code:02x});?)"
    names = [re.escape(name) for name, meant in html5.items() if meant == letter]
    if names:
        yield rf"&(?:amp;){{0,4}}(?:{'|'.join(sorted(names, key=len, reverse=True))})"
    yield r"\\{0,8}" + re.escape(letter)  # last, so that `\x78` is not an escaped x and two digits


def _encoded_patterns(key: str) -> Iterator[str]:
    """Yield the patterns of a key in hexadecimal and base64, unless it is too short."""
    if len(key) < MIN_LENGTH:
        return
    yield f"(?i:{key.encode().hex()})"
    for offset, unknown in enumerate((0, 2, 3)):  # letters that depend on what precedes
        letters = base64.b64encode(bytes(offset) + key.encode()).decode()
        known = letters[unknown : (offset + len(key)) * 8 // 6]
        yield re.escape(known).replace(r"\+", "[+-]").replace("/", "[/_]")
