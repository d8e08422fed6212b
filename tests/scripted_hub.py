"""A hub on this machine: the few addresses that huggingface_hub asks for when it downloads."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

Files = dict[str, bytes]


def commit_of(files: Files) -> str:
    """Forty hexadecimal digits that depend on every file."""
    listing = json.dumps(
        {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
    )
    return hashlib.sha1(listing.encode()).hexdigest()


@contextmanager
def serve(repositories: dict[str, Files]):
    """Serves repositories; yields the address and the list of file paths that were asked for.

    Args:
        repositories: files per `models/owner/name` or `datasets/owner/name`, `@branch` behind it
            where it is not the main one.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(body=True)

        def do_HEAD(self):
            self._answer(body=False)

        def _answer(self, body):
            path = unquote(urlparse(self.path).path).strip("/")
            for name, files in repositories.items():
                repo, _, branch = name.partition("@")
                commit = commit_of(files)
                place = f"{repo.removeprefix('models/')}/resolve/{commit}/"
                if path == f"api/{repo}/revision/{branch or 'main'}":
                    return self._json({"id": repo.partition("/")[2], "sha": commit, "siblings": []})
                if path == f"api/{repo}/tree/{commit}":
                    return self._json(
                        [
                            {"type": "file", "path": file, "size": len(held), "oid": _oid(held)}
                            for file, held in files.items()
                        ]
                    )
                if path.startswith(place) and path.removeprefix(place) in files:
                    file = path.removeprefix(place)
                    if body:
                        asked.append(f"{name}/{file}")
                    headers = {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": commit}
                    return self._send(files[file] if body else b"", headers, len(files[file]))
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _json(self, value):
            text = json.dumps(value).encode()
            self._send(text, {"Content-Type": "application/json"}, len(text))

        def _send(self, content, headers, length):
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
