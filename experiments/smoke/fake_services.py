"""Fakes for smoke tests: a judge of answers, and Inception's weights."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from experiments.files import replace_file

JUDGE = "stand-in"
"""Name of the judge, also in records."""


@contextmanager
def serve_judge() -> Iterator[str]:
    """Serve OpenAI's protocol with grades drawn from the hash of the text; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def write_inception(path: Path) -> None:
    """Write random weights of the right shapes unless the file exists; their FIDs mean nothing."""
    if path.is_file():
        return
    import torch
    from safetensors.torch import save_file

    from experiments.metrics.inception import Inception

    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as draft:
        save_file(Inception().state_dict(), draft)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a request for a grade."""
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        grade = 1 + hashlib.sha256(asked).digest()[0] % 10
        message = {"role": "assistant", "content": f"A grade out of a hat. Rating: [[{grade}]]"}
        content = {
            "model": JUDGE,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": len(asked) // 4, "completion_tokens": 10},
        }
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing: the judge keeps its own journal."""
