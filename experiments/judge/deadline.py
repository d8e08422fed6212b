"""Requests that end in time: a socket's own limit starts anew with every byte that comes."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
import urllib.request
from typing import Any


class Deadline:
    """Cuts the connection of one request when its time is over, whatever it is waiting for.

    A context manager around the request; head, body and TLS handshake count alike.

    Args:
        seconds: for everything.
    """

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds
        self._line: socket.socket | None = None
        self._mutex = threading.Lock()
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._cut)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        """True if the time is over."""
        return time.monotonic() >= self._end

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._mutex:
            if self._line is not None:
                self._line.close()
                self._line = None

    def connect(self, address: Any, timeout: Any = None, source: Any = None) -> socket.socket:
        """Stands in for `socket.create_connection`."""
        left = max(self._end - time.monotonic(), 1e-3)
        found = socket.create_connection(address, min(left, threading.TIMEOUT_MAX), source)
        with self._mutex:  # a handle of its own: TLS takes the socket's away
            self._line = socket.socket(fileno=os.dup(found.fileno()))
        return found

    def _cut(self) -> None:
        with self._mutex, contextlib.suppress(OSError):
            if self._line is not None:
                self._line.shutdown(socket.SHUT_RDWR)


class Request(urllib.request.Request):
    """A request with its deadline."""

    deadline: Deadline


class _Timely:
    """Makes connections that the deadline of their request can cut."""

    def do_open(self, http_class: type, request: Request, **options: Any) -> Any:
        """See `urllib.request.AbstractHTTPHandler.do_open`."""

        def connection(host: str, **kwargs: Any) -> http.client.HTTPConnection:
            made = http_class(host, **kwargs)
            made._create_connection = request.deadline.connect
            return made

        return super().do_open(connection, request, **options)


class HTTPHandler(_Timely, urllib.request.HTTPHandler):
    """`http:` in time."""


class HTTPSHandler(_Timely, urllib.request.HTTPSHandler):
    """`https:` in time."""
