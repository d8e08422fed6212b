"""A chat completion from any server that speaks OpenAI's protocol."""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from experiments.errors import UserError
from experiments.judge.deadline import Deadline, HTTPHandler, HTTPSHandler, Request
from experiments.judge.secret import Secret

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
PATIENCE = 600.0
"""Seconds; a server that asks to wait longer, as for a daily limit, is not waited for."""
LARGEST_BODY = 4 * 1024**2
LONGEST_MESSAGE, SHOWN = 100_000, 400
"""Characters of an error that are looked at, and shown."""
DEEPEST = 8
"""Levels of a server's token counts that are kept."""
AGAIN = {408, 425, 429}
EVERY_REQUEST = {401, 402, 403, 404, 405}
"""Statuses that the next request would get as well."""


class EndpointError(UserError):
    """A request that got no usable answer.

    Args:
        message: says what happened.
        final: every other request would fail the same way.
    """

    def __init__(self, message: str, *, final: bool = False):
        super().__init__(message)
        self.final = final


class Stopped(Exception):
    """Given up because the whole work is."""


class _Passing(Exception):
    """A failure that may be over at the next try; `wait` is what the server asks for, seconds."""

    def __init__(self, message: str, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirected POST would lose its body, and take the key to a place nobody named.
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the judge said."""

    text: str
    model: str | None
    """As the server reports it."""
    finish: str | None
    """`stop`, `length`, …"""
    usage: dict[str, Any] | None
    """Tokens, as the server counts them."""


class Endpoint:
    """A server; `ask` may be called by several threads.

    Args:
        url: up to and without `/chat/completions`.
        key: sent as bearer token if given; never part of a message, a reply or a file.
        timeout: seconds for one answer, from connecting to its last byte.
        retries: further tries after failures that may pass.
    """

    def __init__(self, url: str, key: str | None, *, timeout: float, retries: int):
        self.host = urlsplit(url).netloc
        self._url = url.rstrip("/") + "/chat/completions"
        self._key, self._timeout, self._retries = key, timeout, retries
        self._secret = Secret(key)
        # A proxy is not on the way to this machine itself.
        proxies = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
        self._opener = urllib.request.build_opener(_NoRedirect, HTTPHandler, HTTPSHandler, *proxies)

    def ask(self, body: dict[str, Any], stop: threading.Event) -> Reply:
        """Sends a request, again after failures that may pass, with growing random pauses.

        Raises:
            EndpointError: refused, or still failing after all retries.
            Stopped: `stop` was set while waiting.
        """
        wait = FIRST_WAIT
        for left in range(self._retries, -1, -1):
            if stop.is_set():
                raise Stopped
            try:
                return self._post(body)
            except _Passing as failure:
                if not left:
                    raise EndpointError(f"{failure} (tried {self._retries + 1} times)") from None
                asked = failure.wait or 0.0
                if asked > PATIENCE:
                    raise EndpointError(
                        f"{failure}; it asks to wait {asked:.0f} s", final=True
                    ) from None
                if stop.wait(max(asked, wait * random.uniform(0.5, 1.0))):
                    raise Stopped from None
                wait = min(2 * wait, LONGEST_WAIT)
        raise AssertionError("unreachable")

    def _post(self, body: dict[str, Any]) -> Reply:
        request = Request(
            self._url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with Deadline(self._timeout) as request.deadline:
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    kind = response.headers.get_content_type()
                    return self._reply(self._read(response, request.deadline), kind)
            except urllib.error.HTTPError as error:
                raise self._refusal(error, request.deadline) from None
            except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                if isinstance(reason, TimeoutError) or request.deadline.passed:
                    raise self._passing(f"no answer within {self._timeout:g} s") from None
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise EndpointError(self._said(str(reason)), final=True) from None
                raise self._passing(str(reason) or type(reason).__name__) from None

    def _read(self, response: Any, deadline: Deadline) -> str:
        """The body."""
        parts, size = [], 0
        while part := response.read1(65536):
            parts.append(part)
            size += len(part)
            if size > LARGEST_BODY:
                raise self._passing(f"an answer of more than {LARGEST_BODY} bytes")
        if deadline.passed:
            raise TimeoutError  # which ends the body as its server might
        return b"".join(parts).decode("utf-8", "replace")

    def _reply(self, text: str, kind: str) -> Reply:
        """What a body says; the key is looked for in what was decoded, since JSON can spell it in
        many ways."""
        try:
            found = json.loads(text)
            choice = found["choices"][0]
            content = choice["message"]["content"]
            finish, model = choice.get("finish_reason"), found.get("model")
            if not isinstance(content, str | None):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            shown = self._secret.hide_in_message(_message(text))
            raise self._passing(f"no chat completion but {kind}: {_shortened(shown)!r}") from None
        hide = self._secret.hide_in_reply
        return Reply(
            text=hide(content or ""),  # a refusal has none: a reply without a grade
            model=hide(model) if isinstance(model, str) else None,
            finish=hide(finish) if isinstance(finish, str) else None,
            usage=self._counts(found.get("usage")),
        )

    def _counts(self, found: Any, level: int = 0) -> dict[str, Any] | None:
        """The numbers of a server's `usage`, which may have parts of its own."""
        if not isinstance(found, dict) or level == DEEPEST:
            return None
        kept = {}
        for name, value in found.items():
            if isinstance(value, dict):
                value = self._counts(value, level + 1)
            if isinstance(value, dict | int) or isinstance(value, float) and math.isfinite(value):
                kept[self._secret.hide_in_reply(name)] = value
        return kept

    def _refusal(
        self, error: urllib.error.HTTPError, deadline: Deadline
    ) -> EndpointError | _Passing:
        """An answer with an error status, as what is to be raised."""
        try:
            text = self._read(error, deadline)
        except (OSError, http.client.HTTPException, _Passing):
            text = ""
        message = f"status {error.code}: {_message(text) or error.reason}"
        # "429, come back when you have paid" does not pass.
        unpaid = "insufficient_quota" in text
        if error.code in AGAIN or error.code >= 500:
            if not unpaid:
                return self._passing(message, _retry_after(error.headers.get("Retry-After")))
        moved = 300 <= error.code < 400
        if moved:
            message += f" (moved to {error.headers.get('Location')})"
        final = unpaid or moved or error.code in EVERY_REQUEST
        return EndpointError(self._said(message), final=final)

    def _passing(self, message: str, wait: float | None = None) -> _Passing:
        return _Passing(self._said(message), wait)

    def _said(self, message: str) -> str:
        """A message of this server without the key, shortened after the key is hidden."""
        return f"{self.host}: {_shortened(self._secret.hide_in_message(message))}"


def _message(text: str) -> str:
    """What an error body says."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    try:
        words = found if isinstance(found, str) else json.dumps(found)
    except RecursionError:
        words = text
    return " ".join(words[:LONGEST_MESSAGE].split())


def _shortened(words: str) -> str:
    return words if len(words) <= SHOWN else words[: SHOWN - 1] + "…"


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header: a number, or a date."""
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


def is_loopback(url: str) -> bool:
    """True if the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
