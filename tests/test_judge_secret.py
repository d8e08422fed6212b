"""A key is found in every form that a server may quote it in."""

import base64
import json
import time
import urllib.parse

import pytest

from experiments.judge.scores import find_rating
from experiments.judge.secret import Secret

KEY = "sk-test_0123456789/SECRET+x"


def letters(form):
    return "".join(form.format(ord(letter)) for letter in KEY)


FORMS = {
    "literal": KEY,
    "slash": KEY.replace("/", "\\/"),
    "json": letters("\\u{:04x}"),
    "json, capitals": letters("\\u{:04X}"),
    "json in part": KEY.replace("t", "\\u0074"),
    "json in json": json.dumps(json.dumps(letters("\\u{:04x}"))),
    "javascript": letters("\\x{:02X}"),
    "braces": letters("\\u{{{:x}}}"),
    "url": urllib.parse.quote(KEY, safe=""),
    "url, every letter": letters("%{:02x}"),
    "url, twice": urllib.parse.quote(urllib.parse.quote(KEY, safe=""), safe=""),
    "html": letters("&#{};"),
    "html, hexadecimal": letters("&#x{:X};"),
    "html, names": KEY.replace("/", "&sol;").replace("_", "&lowbar;").replace("+", "&amp;plus;"),
    "hexadecimal": KEY.encode().hex().upper(),
    "base64, for urls": base64.urlsafe_b64encode(KEY.encode()).decode(),
    **{
        f"base64 at {n}": base64.b64encode(b"Bearer: "[:n] + KEY.encode()).decode()
        for n in range(7)
    },
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms(form):
    secret = Secret(KEY)
    for hidden in (
        secret.hide_in_reply(f"[[7]] {form} end"),
        secret.hide_in_message(form + " end"),
    ):
        assert "***" in hidden and hidden.endswith(" end")
        assert len(hidden) < 35, "letters of the key are left"


def test_other_texts_stay():
    text = "sk-test_012345678 [[7]] \\u0073k-test %73k- \x1b[2J\n"
    assert Secret(KEY).hide_in_reply(text) == text == Secret(None).hide_in_reply(text)
    assert Secret(None).hide_in_message("a\x1b[2J\nb") == "a [2J b"


def test_what_begins_like_a_long_key_is_hidden_in_messages():
    assert Secret(KEY).hide_in_message("bad sk-tes****+x here") == "bad *** here"
    assert Secret("EMPTY").hide_in_message("bad EMPTY") == "bad ***"
    assert Secret("EMPTY").hide_in_reply("EMPTY") == "EMPTY"


HUGE = [
    "\\",
    "&amp;",
    "%25",
    "&#0",
    "sk-test_012345678",
    "\\u",
    "<think>",
    "<think></think>",
    "[",
    "[[ 1",
]


@pytest.mark.parametrize("part", HUGE)
def test_no_text_takes_long(part):
    text = part * (500_000 // len(part))
    began = time.process_time()
    Secret(KEY).hide_in_reply(text)
    Secret(KEY).hide_in_message(text)
    find_rating(text)
    assert time.process_time() - began < 5
