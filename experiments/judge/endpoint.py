"""A chat completion from any server that speaks OpenAI's protocol."""

from __future__ import annotations

import http.client
import ipaddress
import json
import random
import re
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

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
PATIENCE = 600.0
"""Seconds; a server that asks to wait longer, as for a daily limit, is not waited for."""
LARGEST_BODY = 32 * 1024**2
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
        timeout: seconds for one answer.
        retries: further tries after failures that may pass.
    """

    def __init__(self, url: str, key: str | None, *, timeout: float, retries: int):
        self.host = urlsplit(url).netloc
        self._url = url.rstrip("/") + "/chat/completions"
        self._key, self._timeout, self._retries = key, timeout, retries
        # A proxy is not on the way to this machine itself.
        proxies = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

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
        request = urllib.request.Request(
            self._url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        deadline = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                kind = response.headers.get_content_type()
                return self._reply(self._read(response, deadline), kind)
        except urllib.error.HTTPError as error:
            raise self._refusal(error, deadline) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            message = self._clean(str(reason) or type(reason).__name__)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise EndpointError(f"{self.host}: {message}", final=True) from None
            if isinstance(reason, TimeoutError):
                message = f"no answer within {self._timeout:g} s"
            raise _Passing(f"{self.host}: {message}") from None

    def _read(self, response: Any, deadline: float) -> str:
        """The body. A socket's time limit starts anew with every byte, the deadline does not."""
        parts, size = [], 0
        while part := response.read1(65536):
            parts.append(part)
            size += len(part)
            if time.monotonic() > deadline:
                raise TimeoutError
            if size > LARGEST_BODY:
                raise _Passing(f"{self.host}: an answer of more than {LARGEST_BODY} bytes")
        text = b"".join(parts).decode("utf-8", "replace")
        # A server that repeats the key must not get it into a file; short ones are words.
        return text.replace(self._key, "***") if self._key and len(self._key) >= 8 else text

    def _reply(self, text: str, kind: str) -> Reply:
        try:
            found = json.loads(text)
            choice = found["choices"][0]
            content = choice["message"]["content"]
            if not isinstance(content, str | None):
                raise TypeError
        except (ValueError, LookupError, TypeError):
            shown = self._clean(_message(text))
            raise _Passing(f"{self.host}: no chat completion but {kind}: {shown!r}") from None
        return Reply(
            text=content or "",  # a refusal has none: a reply without a grade
            model=found.get("model") if isinstance(found.get("model"), str) else None,
            finish=choice.get("finish_reason"),
            usage=found.get("usage") if isinstance(found.get("usage"), dict) else None,
        )

    def _refusal(self, error: urllib.error.HTTPError, deadline: float) -> EndpointError | _Passing:
        """An answer with an error status, as what is to be raised."""
        try:
            text = self._read(error, deadline)
        except (OSError, http.client.HTTPException, _Passing):
            text = ""
        message = self._clean(f"{self.host}: status {error.code}: {_message(text) or error.reason}")
        # "429, come back when you have paid" does not pass.
        unpaid = "insufficient_quota" in text
        if error.code in AGAIN or error.code >= 500:
            if not unpaid:
                return _Passing(message, _retry_after(error.headers.get("Retry-After")))
        moved = 300 <= error.code < 400
        if moved:
            message += f" (moved to {self._clean(str(error.headers.get('Location')))})"
        return EndpointError(message, final=unpaid or moved or error.code in EVERY_REQUEST)

    def _clean(self, message: str) -> str:
        """A message without the key, nor what begins like it: servers like to quote it."""
        if not self._key:
            return message
        message = message.replace(self._key, "***")
        return (
            re.sub(re.escape(self._key[:6]) + r"\S*", "***", message)
            if len(self._key) >= 12
            else message
        )


def _message(text: str) -> str:
    """What an error body says, shortened."""
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    words = " ".join((found if isinstance(found, str) else json.dumps(found)).split())
    return words if len(words) <= 300 else words[:299] + "…"


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
    except ValueError:
        return None


def is_loopback(url: str) -> bool:
    """True if the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
