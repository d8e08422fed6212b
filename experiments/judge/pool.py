"""Threads that ask for judgements until none is missing, or it is clear that none will come."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from experiments.judge.cases import Item
from experiments.judge.endpoint import Endpoint, EndpointError, Stopped
from experiments.judge.journal import Journal
from experiments.judge.scores import find_rating

GIVE_UP = 5
"""Failed requests in a row after which the server is taken for unusable."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Whom to ask, and how."""

    model: str
    temperature: float | None
    """None leaves it to the server."""
    max_tokens: int
    limit_field: str
    """`max_tokens`, or `max_completion_tokens` where a server insists."""
    attempts: int
    """Replies of which none holds a grade, after which a judgement has failed."""

    def body(self, item: Item) -> dict[str, Any]:
        """The request."""
        body = {"model": self.model, "messages": item.messages, self.limit_field: self.max_tokens}
        return body if self.temperature is None else {**body, "temperature": self.temperature}


@dataclass
class Outcome:
    """What came of it."""

    troubles: dict[str, int] = field(default_factory=dict)
    """Messages of failed requests, with their number."""
    stopped: str | None = None
    """Why the work ended early."""


class Pool:
    """Asks for judgements side by side.

    Args:
        judge: whom to ask.
        endpoint: where.
        advance: called after every judgement that was had, from several threads.
    """

    def __init__(self, judge: Judge, endpoint: Endpoint, advance: Callable[[], None]):
        self._judge, self._endpoint, self._advance = judge, endpoint, advance
        self._stop = threading.Event()
        self._done = threading.Event()
        self._mutex = threading.Lock()
        self._in_a_row = 0
        self._outcome = Outcome()
        self._todo: queue.SimpleQueue[tuple[Journal, Item, int]] = queue.SimpleQueue()

    def run(self, todo: Iterable[tuple[Journal, Item, int]], threads: int) -> Outcome:
        """Works through `todo`: journal to write to, judgement to be had, replies had so far."""
        for one in todo:
            self._todo.put(one)
        self._busy = threads
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()
        # An event, since a join that Ctrl-C interrupts takes its thread for dead (Python 3.11).
        try:
            self._done.wait()
        except KeyboardInterrupt:
            self._end("interrupted")
            print("\nending after the requests under way; interrupt again to drop them", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                self._done.wait()
        return self._outcome

    def _work(self) -> None:
        try:
            self._work_through()
        finally:
            with self._mutex:
                self._busy -= 1
                if not self._busy:
                    self._done.set()

    def _work_through(self) -> None:
        while not self._stop.is_set():
            try:
                journal, item, asked = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._grade(journal, item, asked)
            except Stopped:
                return
            except EndpointError as error:
                self._failed(str(error), error.final)
            except Exception as error:  # a full disk, say: the others would meet it too
                self._failed(f"{type(error).__name__}: {error}", True)

    def _grade(self, journal: Journal, item: Item, asked: int) -> None:
        judge = self._judge
        for attempt in range(asked + 1, judge.attempts + 1):
            reply = self._endpoint.ask(judge.body(item), self._stop)
            rating, pattern = find_rating(reply.text)
            journal.append(
                {
                    "question_id": item.question,
                    "turn": item.turn,
                    "repeat": item.repeat,
                    "attempt": attempt,
                    "rating": rating,
                    "pattern": pattern,
                    "reply": reply.text,
                    "finish": reply.finish,
                    "prompt": item.prompt,
                    "answer": item.answer,
                    "request": item.request(judge.model, judge.temperature),
                    "model": {"asked": judge.model, "reported": reply.model},
                    "host": self._endpoint.host,
                    "temperature": judge.temperature,
                    "max_tokens": judge.max_tokens,
                    "usage": reply.usage,
                    "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                }
            )
            with self._mutex:
                self._in_a_row = 0
            if rating is not None:
                break
        self._advance()

    def _failed(self, message: str, final: bool) -> None:
        with self._mutex:
            troubles = self._outcome.troubles
            troubles[message] = troubles.get(message, 0) + 1
            self._in_a_row += 1
            row = self._in_a_row
        if final:
            self._end(message)
        elif row >= GIVE_UP:
            self._end(f"{row} requests in a row failed")

    def _end(self, why: str) -> None:
        with self._mutex:
            self._outcome.stopped = self._outcome.stopped or why
        self._stop.set()
