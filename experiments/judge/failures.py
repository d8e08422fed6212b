"""Failed requests: their errors, messages and pauses."""

from __future__ import annotations

import json
import os
import ssl
import time
from email.utils import parsedate_to_datetime

from experiments.errors import UserError

MAX_READ, MAX_SHOWN = 100_000, 400
"""Characters of an error message that are read and shown."""
RETRIED_STATUSES = {408, 425, 429}
"""Client errors that may pass; every 5xx may as well."""
FINAL_STATUSES = {401, 402, 403, 404, 405}
"""Client errors that every other request would get."""


class EndpointError(UserError):
    """Raised if a request gets no usable answer.

    Args:
        message: description of the failure.
        final: whether every other request would fail in the same way.
    """

    def __init__(self, message: str, *, final: bool = False):
        super().__init__(message)
        self.final = final


class TransientError(Exception):
    """Raised if a request fails but may succeed at the next attempt.

    Args:
        message: description of the failure.
        retry_after: seconds to wait, as requested by the server.
    """

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class Stopped(Exception):
    """Raised if a request is abandoned because all work stops."""


def find_cause(error: Exception) -> str | ssl.SSLCertVerificationError:
    """Return the system's message behind an error of httpx2, which often has none of its own.

    Errors of certificates are returned as they are.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one error per address of a host
            cause = cause.exceptions[0]
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno) if isinstance(cause, ConnectionError) else str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def parse_message(text: str) -> str:
    """Return the message of an error body, on one line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    try:
        message = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        message = text
    return " ".join(message[:MAX_READ].split())


def shorten(message: str) -> str:
    """Cut a message to MAX_SHOWN characters."""
    return message if len(message) <= MAX_SHOWN else message[: MAX_SHOWN - 1] + "…"


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
