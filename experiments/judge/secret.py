"""The key of a judge's server, which must reach no file and no message."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html.entities import html5

HIDDEN = "***"
WORD = 8
"""Shorter keys are words, of replies too: they are hidden in messages only."""
LONG = 12
"""Of keys as long as this, also what begins like them is hidden in messages: servers like to quote
a key in part."""


class Secret:
    """Finds a key in whatever form a server may quote it.

    Literal, or with any of its characters escaped as in JSON, JavaScript, URLs or HTML (also twice,
    as in JSON that holds JSON), in hexadecimal, or in base64 at any alignment.

    Args:
        key: the key; None hides nothing.
    """

    def __init__(self, key: str | None):
        self._whole = self._begin = None
        if key:
            self._whole = re.compile("|".join([_spelled(key), *_encoded(key)]))
        if key and len(key) >= LONG:
            self._begin = re.compile(_spelled(key[:6]) + r"\S*")
        self._word = key is None or len(key) < WORD

    def hide_in_reply(self, text: str) -> str:
        """The words of a judge without the key."""
        return text if self._word else self._whole.sub(HIDDEN, text)

    def hide_in_message(self, text: str) -> str:
        """A message, without control characters, the key, or what begins like it."""
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        for pattern in (self._whole, self._begin):
            text = text if pattern is None else pattern.sub(HIDDEN, text)
        return text


def _spelled(key: str) -> str:
    """Pattern of the key, each character as itself or escaped.

    Repetitions are bounded, so that no text takes long.
    """
    return "".join(f"(?:{'|'.join(_forms(letter))})" for letter in key)


def _forms(letter: str) -> Iterator[str]:
    code = ord(letter)
    yield rf"(?i:\\{{1,8}}(?:u\{{?0{{0,6}}|x){code:02x}\}}?)"
    yield rf"(?i:%(?:25){{0,4}}{code:02x})"
    yield rf"(?i:&(?:amp;){{0,4}}#(?:0{{0,6}}{code}|x0{{0,6}}{code:02x});?)"
    names = [re.escape(name) for name, meant in html5.items() if meant == letter]
    if names:
        yield rf"&(?:amp;){{0,4}}(?:{'|'.join(sorted(names, key=len, reverse=True))})"
    yield r"\\{0,8}" + re.escape(letter)  # last, or `\x78` were an escaped x and two digits


def _encoded(key: str) -> Iterator[str]:
    """Patterns of the key in hexadecimal and base64; of short keys none, since they mean little."""
    if len(key) < WORD:
        return
    yield f"(?i:{key.encode().hex()})"
    for offset, unknown in enumerate((0, 2, 3)):  # letters that what stands before decides as well
        letters = base64.b64encode(bytes(offset) + key.encode()).decode()
        known = letters[unknown : (offset + len(key)) * 8 // 6]
        yield re.escape(known).replace(r"\+", "[+-]").replace("/", "[/_]")
