"""Chat completions from any server that speaks OpenAI's protocol.

Built on httpx2, as the `openai` client is. That client fails on half a surrogate pair in an answer,
sends OPENAI_CUSTOM_HEADERS to every server, and would not replace any of the rules below.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import random
import ssl
import threading
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from experiments.errors import UserError
from experiments.judge.failures import (
    FINAL_STATUSES,
    RETRIED_STATUSES,
    EndpointError,
    Stopped,
    TransientError,
    find_cause,
    parse_message,
    parse_retry_after,
    shorten,
)
from experiments.judge.secret import Secret

if TYPE_CHECKING:
    import httpx2

FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
MAX_RETRY_AFTER = 600.0
"""Seconds; a server that asks for a longer pause, such as for a daily limit, ends the work."""
MAX_BYTES = 4 * 1024**2
"""Size of an answer."""
MAX_USAGE_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Answer of the judge."""

    text: str
    model: str | None
    """Name reported by the server."""
    finish: str | None
    """Reason, such as `stop` or `length`."""
    usage: dict[str, Any] | None
    """Token counts reported by the server."""


class Endpoint:
    """Server of a judge. Several threads may send requests.

    Args:
        url: base URL, without `/chat/completions`.
        key: bearer token, or None. Never appears in messages, logs or replies.
        timeout: seconds for an answer, from connecting to the last byte.
        retries: additional attempts after transient failures.
    """

    def __init__(self, url: str, key: str | None, *, timeout: float, retries: int):
        try:
            import httpx2
        except ImportError as error:
            raise UserError("the judge needs httpx2: pip install -e '.[experiments]'") from error
        self._http = httpx2
        self.host = urlsplit(url).netloc
        self._url = url.rstrip("/") + "/chat/completions"
        self._timeout, self._retries = timeout, retries
        self._secret = Secret(key)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Unpacked, a small compressed answer may have any size.
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        self._tls = ssl.create_default_context()  # trusts the system, unlike httpx2's default
        for name in ("httpx2", "httpcore2"):  # log headers, where servers may quote the key
            logging.getLogger(name).setLevel(logging.WARNING)

    def request(self, body: dict[str, Any], stop: threading.Event) -> Reply:
        """Send a request. Transient failures are retried after growing random pauses.

        Args:
            body: body of the request.
            stop: ends the pauses when set.

        Raises:
            EndpointError: the request was refused, or failed in all attempts.
            Stopped: `stop` was set.
        """
        pause = FIRST_PAUSE
        for left in range(self._retries, -1, -1):
            if stop.is_set():
                raise Stopped
            try:
                return self._post(body)
            except TransientError as failure:
                if not left:
                    raise EndpointError(f"{failure} (tried {self._retries + 1} times)") from None
                retry_after = failure.retry_after or 0.0
                if retry_after > MAX_RETRY_AFTER:
                    raise EndpointError(
                        f"{failure}; the server asks to wait {retry_after:.0f} s", final=True
                    ) from None
                if stop.wait(max(retry_after, pause * random.uniform(0.5, 1.0))):
                    raise Stopped from None
                pause = min(2 * pause, MAX_PAUSE)
        raise AssertionError("unreachable")

    def _post(self, body: dict[str, Any]) -> Reply:
        try:
            response, text = asyncio.run(self._exchange(json.dumps(body).encode()))
        except TimeoutError:
            raise self._transient(f"no answer within {self._timeout:g} s") from None
        except (ImportError, ValueError, self._http.InvalidURL) as error:  # unsupported proxy
            raise EndpointError(self._format(str(error)), final=True) from None
        except (self._http.HTTPError, OSError) as error:
            cause = find_cause(error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise EndpointError(self._format(str(cause)), final=True) from None
            raise self._transient(cause) from None
        if not response.is_success:
            raise self._build_error(response, text)
        return self._parse_reply(
            text, response.headers.get("Content-Type", "no type").partition(";")[0]
        )

    async def _exchange(self, content: bytes) -> tuple[httpx2.Response, str]:
        """Send a request and read the whole answer within the timeout."""
        response, parts, size = None, [], 0
        # httpx2 follows no redirects by default: they would send the key to another server.
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
                    if size > MAX_BYTES:
                        raise self._transient(f"an answer of more than {MAX_BYTES} bytes")
        except (TimeoutError, self._http.HTTPError, OSError, TransientError):
            if response is None or response.is_success:
                raise
            parts = []  # the status alone describes the error
        return response, b"".join(parts).decode("utf-8", "replace")

    def _parse_reply(self, text: str, content_type: str) -> Reply:
        """Parse a chat completion.

        The key is hidden after decoding, since JSON can escape it in many ways.
        """
        try:
            completion = json.loads(text)
            choice = completion["choices"][0]
            content = choice["message"]["content"]
            finish, model = choice.get("finish_reason"), completion.get("model")
            if not isinstance(content, str | None):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            shown = shorten(self._secret.hide_in_message(parse_message(text)))
            raise self._transient(f"not a chat completion ({content_type}): {shown!r}") from None
        hide = self._secret.hide_in_reply
        return Reply(
            text=hide(content or ""),  # None if the model refuses: a reply without a grade
            model=hide(model) if isinstance(model, str) else None,
            finish=hide(finish) if isinstance(finish, str) else None,
            usage=self._parse_usage(completion.get("usage")),
        )

    def _parse_usage(self, usage: Any, depth: int = 0) -> dict[str, Any] | None:
        """Return the numbers of `usage`, which may be nested."""
        if not isinstance(usage, dict) or depth == MAX_USAGE_DEPTH:
            return None
        kept = {}
        for name, value in usage.items():
            if isinstance(value, dict):
                value = self._parse_usage(value, depth + 1)
            if isinstance(value, dict | int) or (isinstance(value, float) and math.isfinite(value)):
                kept[self._secret.hide_in_reply(name)] = value
        return kept

    def _build_error(self, response: httpx2.Response, text: str) -> EndpointError | TransientError:
        """Return the exception for an answer with an error status."""
        status = response.status_code
        message = f"status {status}: {parse_message(text) or response.reason_phrase}"
        unpaid = "insufficient_quota" in text  # comes as 429, but waiting does not help
        if (status in RETRIED_STATUSES or status >= 500) and not unpaid:
            return self._transient(message, parse_retry_after(response.headers.get("Retry-After")))
        moved = 300 <= status < 400
        if moved:
            message += f" (moved to {response.headers.get('Location')})"
        final = unpaid or moved or status in FINAL_STATUSES
        return EndpointError(self._format(message), final=final)

    def _transient(self, message: str, retry_after: float | None = None) -> TransientError:
        return TransientError(self._format(message), retry_after)

    def _format(self, message: str) -> str:
        """Prepend the host and hide the key, before the message is cut."""
        return f"{self.host}: {shorten(self._secret.hide_in_message(message))}"


def _find_proxy(url: str) -> str | None:
    """Return the proxy that the environment sets for a URL, None for this machine itself."""
    parts = urlsplit(url)
    found = urllib.request.getproxies().get(parts.scheme)
    if not found or is_loopback(url) or urllib.request.proxy_bypass(parts.netloc):
        return None
    return found if "://" in found else f"http://{found}"


def is_loopback(url: str) -> bool:
    """Return True if the host of the URL is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
