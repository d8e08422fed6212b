"""Messages and pauses of failed requests, without a server."""

import email.utils
import json
import ssl
import time

import pytest

from experiments.judge.failures import (
    MAX_SHOWN,
    find_cause,
    parse_message,
    parse_retry_after,
    shorten,
)


def test_retry_after():
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 28 <= parse_retry_after(later) <= 30
    assert parse_retry_after(email.utils.formatdate(time.time() - 30)) == 0
    assert parse_retry_after("-1") == 0 and parse_retry_after("2.5") == 2.5
    assert parse_retry_after("soon") is None is parse_retry_after(None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no such model", "code": 1}}, "no such model"),
        ({"error": "down"}, "down"),
        ({"detail": [{"loc": "body"}]}, '[{"loc": "body"}]'),
        ({"message": ""}, '{"message": ""}'),
        ([1], "[1]"),
    ],
)
def test_messages_of_json(body, message):
    assert parse_message(json.dumps(body)) == message


def test_messages_of_other_texts():
    assert parse_message("<h1>bad\n gateway</h1>") == "<h1>bad gateway</h1>"
    assert parse_message("") == ""
    assert len(parse_message("x" * 500_000)) == 100_000
    assert len(shorten("x" * 500)) == MAX_SHOWN and shorten("x" * MAX_SHOWN) == "x" * MAX_SHOWN


def caused_by(cause: BaseException) -> Exception:
    """Return an error as httpx2 wraps it, without words."""
    error = RuntimeError("")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = cause
    return error


def test_the_cause_of_an_error():
    refused = ConnectionRefusedError(111, "Connect call failed ('::1', 8000)")
    assert find_cause(caused_by(refused)) == "Connection refused"
    assert find_cause(caused_by(ExceptionGroup("", [refused, OSError(1, "x")]))) == (
        "Connection refused"
    )
    assert find_cause(RuntimeError("closed")) == "closed"
    assert find_cause(RuntimeError("")) == "RuntimeError"
    certificate = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert find_cause(caused_by(certificate)) is certificate
