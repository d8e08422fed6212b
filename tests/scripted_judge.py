"""A server on this machine that speaks OpenAI's protocol and answers as a test tells it to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789-SECRET"


@dataclass
class Answer:
    """What is sent back; a text is a reply of the judge in OpenAI's form."""

    content: Any = "Fine. [[7]]"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Instead of a reply."""
    delay: float = 0.0
    drop: bool = False
    """Closes the connection instead of answering."""
    dribble: float = 0.0
    """Seconds between the body's bytes."""

    def body(self, asked: dict[str, Any]) -> bytes:
        if self.raw is not None:
            return self.raw
        choice = {
            "message": {"role": "assistant", "content": self.content},
            "finish_reason": "stop",
        }
        return json.dumps(
            {
                "model": f"{asked['model']}-0613",
                "choices": [choice],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            }
        ).encode()


class Server:
    """Requests as they came, and how many were under way at once."""

    def __init__(self, script: Callable[[dict[str, Any], int], Answer]):
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.url = ""

    @property
    def texts(self) -> list[str]:
        """What the judge was told, request by request."""
        return [one["messages"][-1]["content"] for one in self.requests]


@contextmanager
def serving(
    script: Callable[[dict[str, Any], int], Answer] | Answer | None = None,
    tls: ssl.SSLContext | None = None,
):
    """Run a server whose script gets the request and its number, from 0."""
    fixed = script if isinstance(script, Answer) else Answer()
    server = Server(script if callable(script) else lambda *_: fixed)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.requests)
                server.requests.append(asked)
                server.headers.append(dict(self.headers))
                server.times.append(time.monotonic())
                server.busy += 1
                server.busiest = max(server.busy, server.busiest)
            try:
                answer = server.script(asked, number)
                time.sleep(answer.delay)
            finally:  # before the answer: the client's next request may come upon it
                with server.lock:
                    server.busy -= 1
            with contextlib.suppress(OSError):  # the client has gone
                self.answer(answer, asked)

        def answer(self, answer: Answer, asked: dict[str, Any]):
            if answer.drop:
                self.close_connection = True
                return
            body = answer.body(asked)
            self.send_response(answer.status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **answer.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            for byte in [body[i : i + 1] for i in range(len(body))] if answer.dribble else [body]:
                self.wfile.write(byte)
                time.sleep(answer.dribble)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # a handshake that the client ended
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
        server.url = f"https://localhost:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
