"""Chat completions from any server that speaks OpenAI's protocol.

On httpx2, as the `openai` client is. That client raises at half a surrogate pair in an answer to be
graded and sends OPENAI_CUSTOM_HEADERS to every server; it would leave all rules below to this file.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import os
import random
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from experiments.errors import UserError
from experiments.judge.secret import Secret

if TYPE_CHECKING:
    import httpx2

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
        try:
            import httpx2
        except ImportError as error:
            raise UserError("the judge needs httpx2: pip install -e '.[experiments]'") from error
        self._http = httpx2
        self.host = urlsplit(url).netloc
        self._url = url.rstrip("/") + "/chat/completions"
        self._key, self._timeout, self._retries = key, timeout, retries
        self._secret = Secret(key)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # A compressed answer may be small on the way and without end when unpacked.
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        self._tls = ssl.create_default_context()  # the system's certificates, unlike httpx2's
        for name in ("httpx2", "httpcore2"):  # they log headers, where a server may quote the key
            logging.getLogger(name).setLevel(logging.WARNING)

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
        try:
            response, text = asyncio.run(self._exchange(json.dumps(body).encode()))
        except TimeoutError:
            raise self._passing(f"no answer within {self._timeout:g} s") from None
        except (ImportError, ValueError, self._http.InvalidURL) as error:  # a proxy of another kind
            raise EndpointError(self._said(str(error)), final=True) from None
        except (self._http.HTTPError, OSError) as error:
            reason = _find_reason(error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise EndpointError(self._said(str(reason)), final=True) from None
            raise self._passing(reason) from None
        if not response.is_success:
            raise self._refusal(response, text)
        return self._reply(text, response.headers.get("Content-Type", "").partition(";")[0])

    async def _exchange(self, content: bytes) -> tuple[httpx2.Response, str]:
        """Sends a request and reads the whole answer, within the timeout."""
        response, parts, size = None, [], 0
        # Redirects are not followed: they would take the key to a place nobody named.
        client = self._http.AsyncClient(
            verify=self._tls, proxy=_find_proxy(self._url), trust_env=False, timeout=None
        )
        try:
            async with (
                asyncio.timeout(self._timeout),
                client,
                client.stream(
                    "POST", self._url, content=content, headers=self._headers
                ) as response,
            ):
                async for part in response.aiter_raw():
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_BODY:
                        raise self._passing(f"an answer of more than {LARGEST_BODY} bytes")
        except (TimeoutError, self._http.HTTPError, OSError, _Passing):
            if response is None or response.is_success:
                raise
            parts = []  # the status of a refusal says enough
        return response, b"".join(parts).decode("utf-8", "replace")

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

    def _refusal(self, response: httpx2.Response, text: str) -> EndpointError | _Passing:
        """An answer with an error status, as what is to be raised."""
        status = response.status_code
        message = f"status {status}: {_message(text) or response.reason_phrase}"
        # "429, come back when you have paid" does not pass.
        unpaid = "insufficient_quota" in text
        if status in AGAIN or status >= 500:
            if not unpaid:
                return self._passing(message, _retry_after(response.headers.get("Retry-After")))
        moved = 300 <= status < 400
        if moved:
            message += f" (moved to {response.headers.get('Location')})"
        final = unpaid or moved or status in EVERY_REQUEST
        return EndpointError(self._said(message), final=final)

    def _passing(self, message: str, wait: float | None = None) -> _Passing:
        return _Passing(self._said(message), wait)

    def _said(self, message: str) -> str:
        """A message of this server without the key, shortened after the key is hidden."""
        return f"{self.host}: {_shortened(self._secret.hide_in_message(message))}"


def _find_reason(error: Exception) -> str | ssl.SSLCertVerificationError:
    """Return what the system said behind an error of httpx2, which is often without words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one for every address of a host
            cause = cause.exceptions[0]
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno) if isinstance(cause, ConnectionError) else str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _find_proxy(url: str) -> str | None:
    """Return the environment's proxy for a URL; none is on the way to this machine itself."""
    parts = urlsplit(url)
    found = urllib.request.getproxies().get(parts.scheme)
    if not found or is_loopback(url) or urllib.request.proxy_bypass(parts.netloc):
        return None
    return found if "://" in found else f"http://{found}"


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
