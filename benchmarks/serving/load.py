"""A server under load: `python -m benchmarks.serving.load BASE [--name NAME]`.

Many clients at once ask `python -m fourierft.serve` for texts of many adapters. Every answer is
compared with that of its adapter alone. Meanwhile an adapter is replaced again and again, clients
leave, requests that cannot be answered come in, and the server is killed and started anew.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.serving.contestants import fourierft_config
from fourierft import export_compact

PROMPT = "Once upon a time"
BASE, REPLACED = "base", "replaced"
SOURCES = ("first", "second")
"""What the adapter `REPLACED` is in turns."""
LONGEST_START = 300.0
"""Seconds."""
Answer = tuple[int, dict[str, Any]]


def make_adapters(base: str, folder: Path, names: Sequence[str], n: int, scale: float) -> None:
    """Write compact files of adapters with random coefficients, each with others."""
    net = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(net, fourierft_config(n, ["q_proj", "v_proj"]))
    coefficients = [p for name, p in model.named_parameters() if "fourierft_spectrum" in name]
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        for parameter in coefficients:
            parameter.data.normal_(0, scale, generator=generator)
        export_compact(model, folder / f"{name}.safetensors")


class ServerProcess:
    """`python -m fourierft.serve` in a process of its own.

    Args:
        base: Folder of the base model.
        adapters: Folder of adapters.
        batch: Texts made at once.
    """

    def __init__(self, base: str, adapters: Path, batch: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        options = ["--adapters", adapters, "--name", BASE, "--batch", batch, "--port", self.port]
        self._command = [sys.executable, "-m", "fourierft.serve", base, *map(str, options)]
        self.start()

    def start(self) -> None:
        """Start it, and return once it answers."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + LONGEST_START
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask("/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server did not start")

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Answer:
        """Return status and body of an answer.

        Raises:
            OSError: There is no server.
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text.startswith("{") else {"text": text}

    def write(self, model: str, tokens: int) -> Answer:
        """Ask for a text."""
        asked = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
        return self.ask("/v1/completions", asked)

    def leave(self, model: str) -> None:
        """Ask for a long text and close the connection."""
        body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": 400}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.05)

    def metrics(self) -> dict[str, float]:
        """Return the server's own counts."""
        lines = self.ask("/metrics")[1]["text"].splitlines()
        pairs = (line.split() for line in lines if not line.startswith("#"))
        return {name.removeprefix("fourierft_"): float(value) for name, value in pairs}

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def kill(self) -> None:
        """Kill it, as by SIGKILL."""
        self.process.kill()
        self.process.wait()


def text_of(answer: Answer) -> str:
    """Return the text of an answer."""
    return answer[1]["choices"][0]["text"]


class Disturbance(threading.Thread):
    """Replaces an adapter, leaves, and asks for what cannot be, until told to stop."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__()
        self.server = server
        self.done = threading.Event()
        self.replacements = self.left = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Take turns."""
        refused = {
            404: ("/v1/completions", {"model": "nobody", "prompt": PROMPT}, "POST"),
            413: ("/v1/completions", b" " * 10_000_000, "POST"),
            400: (f"/v1/adapters/{REPLACED}", {"path": "damaged"}, "PUT"),
        }
        while not self.done.wait(0.05):
            try:
                source = SOURCES[self.replacements % len(SOURCES)]
                asked = {"path": f"{source}.safetensors"}
                status, _ = self.server.ask(f"/v1/adapters/{REPLACED}", asked, "PUT")
                self.replacements += status == 200
                self.server.leave(REPLACED)
                self.left += 1
                for expected, request in refused.items():
                    status, said = self.server.ask(*request)
                    if status != expected or "error" not in said:
                        self.wrong.append(f"{expected} expected, {status} found")
            except OSError:  # it was killed
                time.sleep(0.1)


def load(server: ServerProcess, asked: Sequence[str], clients: int, tokens: int) -> dict[str, Any]:
    """Have many clients ask for texts at once.

    Returns:
        `texts`, in the order asked for; `seconds`; `tokens per s`; `latency s`, median and 95th
        percentile.
    """
    latencies: list[float] = []

    def one(name: str) -> str:
        while True:
            began = time.perf_counter()
            try:
                answer = server.write(name, tokens)
            except (OSError, ValueError):  # killed: an honest client tries again
                time.sleep(0.1)
                continue
            if answer[0] == 500:  # the server is told to end
                continue
            latencies.append(time.perf_counter() - began)
            return text_of(answer)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        texts = list(pool.map(one, asked))
    spent = time.perf_counter() - began
    percentiles = statistics.quantiles(latencies, n=20, method="inclusive")
    found = {"texts": texts, "seconds": spent, "tokens per s": tokens * len(asked) / spent}
    return found | {"latency s": [percentiles[9], percentiles[18]]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make adapters, ask for each alone, then for all at once, then with all that disturbs."""
    names = [f"adapter{number}" for number in range(options.count)]
    result: dict[str, Any] = {"adapters": options.count, "clients": options.clients}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_adapters(options.base, folder, [*names, *SOURCES], options.n, options.scale)
        (folder / f"{REPLACED}.safetensors").write_bytes(
            (folder / f"{SOURCES[0]}.safetensors").read_bytes()
        )
        server = ServerProcess(options.base, folder, options.batch)
        timer = threading.Timer(options.kill_after, _restart, [server])
        try:
            (folder / "damaged").write_bytes(b"nothing")
            known = [BASE, *names[: options.compared], *SOURCES]
            alone = {one: text_of(server.write(one, options.tokens)) for one in known}
            result["different texts"] = len(set(alone.values()))
            asked = [names[turn % options.count] for turn in range(options.requests)]
            before = server.cpu_seconds()
            quiet = load(server, asked, options.clients, options.tokens)
            quiet["cpu s"] = server.cpu_seconds() - before
            result["wrong"] = compare(asked, quiet.pop("texts"), alone)
            result["quiet"] = quiet
            mixed = [[one, REPLACED][turn % 4 == 3] for turn, one in enumerate(asked)]
            disturbance = Disturbance(server)
            disturbance.start()
            result["memory MB"] = psutil.Process(server.process.pid).memory_info().rss / 1e6
            timer.start()
            disturbed = load(server, mixed, options.clients, options.tokens)
            disturbance.done.set()
            disturbance.join()
            result["wrong, disturbed"] = compare(mixed, disturbed.pop("texts"), alone)
            result["disturbed"] = disturbed
            result["replacements"], result["left"] = disturbance.replacements, disturbance.left
            result["refused otherwise"] = disturbance.wrong
        finally:
            timer.cancel()
            if timer.ident is not None:  # started: a restart may have begun
                timer.join()
            server.kill()
    return result


def _restart(server: ServerProcess) -> None:
    server.kill()
    server.start()


def compare(asked: Sequence[str], texts: Sequence[str], alone: dict[str, str]) -> list[str]:
    """Return the adapters whose texts are not those that they make alone."""
    allowed = {name: {text} for name, text in alone.items()}
    allowed[REPLACED] = {alone[source] for source in SOURCES}
    pairs = zip(asked, texts, strict=True)
    return [name for name, text in pairs if name in allowed and text not in allowed[name]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Load a server and print what came of it."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving.load", description=__doc__)
    parser.add_argument("base", help="folder of a causal language model")
    parser.add_argument("--count", type=int, default=100, help="adapters")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=16, help="new tokens of a text")
    parser.add_argument("--batch", type=int, default=32, help="texts made at once")
    parser.add_argument("--compared", type=int, default=100, help="adapters also asked alone")
    parser.add_argument("--n", type=int, default=1000, help="coefficients per matrix")
    parser.add_argument("--scale", type=float, default=1.0, help="of the coefficients")
    parser.add_argument("--kill-after", type=float, default=3.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    result = measure(options)
    print(json.dumps(result, indent=1))
    if result["wrong"] or result["wrong, disturbed"] or result["refused otherwise"]:
        sys.exit("benchmarks.serving.load: some answers are not what they should be")


if __name__ == "__main__":
    main()
