"""The thread that makes texts: requests wait here until the batch has room."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass

from .decoding import Decoder, TextRequest

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """Sums since the start."""

    requests: int = 0
    tokens: int = 0
    failures: int = 0
    batches: int = 0
    """Forward passes, of prompts or of one token each."""
    rows: int = 0
    """Rows of all forward passes."""
    seconds: float = 0.0
    """Time spent in them."""


class Scheduler:
    """Runs a `Decoder` in a thread.

    Args:
        decoder: The decoder; used by this thread alone.
        largest: Texts made at once.
        waiting: Requests that may wait; more are refused.
    """

    def __init__(self, decoder: Decoder, largest: int, waiting: int = 1024) -> None:
        self.decoder = decoder
        self.largest = largest
        self.counters = Counters()
        self.waiting: queue.Queue[TextRequest] = queue.Queue(waiting)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)

    @property
    def running(self) -> int:
        """Number of texts that are being made."""
        return len(self.decoder.requests)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current token; texts that are not whole end as cancelled."""
        self._stop.set()
        self._thread.join()

    def submit(self, request: TextRequest) -> bool:
        """Queue a request; False if too many wait."""
        try:
            self.waiting.put_nowait(request)
        except queue.Full:
            return False
        return True

    def _work(self) -> None:
        while not self._stop.is_set():
            joining = self._next()
            if not joining and not self.decoder.requests:
                continue
            began = time.perf_counter()
            try:
                if joining:
                    self.counters.requests += len(joining)
                    self._count(len(joining))
                    self.decoder.join(joining)
                if self.decoder.requests:
                    self._count(len(self.decoder.requests))
                    self.decoder.step()
            except Exception:  # out of memory, a broken adapter: this batch fails, not the server
                log.exception("a batch failed")
                failed = {*joining, *self.decoder.requests}
                self.counters.failures += len(failed)
                self.decoder = Decoder(self.decoder.bank, tuple(self.decoder.ends))
                for request in failed:
                    request.emit(None, "error")
            self.counters.seconds += time.perf_counter() - began
        for request in [*self.decoder.requests, *self._next(wait=False)]:
            request.emit(None, "error")

    def _count(self, rows: int) -> None:
        self.counters.batches += 1
        self.counters.rows += rows
        self.counters.tokens += rows

    def _next(self, wait: bool = True) -> list[TextRequest]:
        """Return the requests that join now; waits for one if nothing is being made."""
        found: list[TextRequest] = []
        room = self.largest - len(self.decoder.requests) if wait else self.waiting.qsize()
        idle = wait and not self.decoder.requests
        while len(found) < room:
            try:
                request = self.waiting.get(timeout=0.1) if idle else self.waiting.get_nowait()
            except queue.Empty:
                break
            idle = False
            if not request.cancelled:
                found.append(request)
        return found
