"""Threads that request judgements until all are made or the server turns out unusable."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from experiments.judge.benchmark_runs import TurnJudgement
from experiments.judge.endpoint import Endpoint
from experiments.judge.failures import EndpointError, Stopped
from experiments.judge.journal import Journal
from experiments.judge.scores import find_rating

MAX_FAILURES = 5
"""Consecutive failed requests after which the server is considered unusable."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Model that grades, and the parameters of its requests."""

    model: str
    temperature: float | None
    """None: the server's default."""
    max_tokens: int
    limit_field: str
    """`max_tokens`, or `max_completion_tokens` for servers that require it."""
    attempts: int
    """Replies without a grade after which a judgement has failed."""

    def build_request(self, judgement: TurnJudgement) -> dict[str, Any]:
        """Return the body of the request for a judgement."""
        body = {
            "model": self.model,
            "messages": judgement.messages,
            self.limit_field: self.max_tokens,
        }
        return body if self.temperature is None else {**body, "temperature": self.temperature}


@dataclass
class Outcome:
    """Errors of a pool, and the reason if it stopped early."""

    errors: dict[str, int] = field(default_factory=dict)
    """Number of failed requests by error message."""
    stop_reason: str | None = None


class Pool:
    """Requests judgements in parallel.

    Args:
        judge: model and parameters.
        endpoint: server of the model.
        advance: called after every judgement, from several threads.
    """

    def __init__(self, judge: Judge, endpoint: Endpoint, advance: Callable[[], None]):
        self._judge, self._endpoint, self._advance = judge, endpoint, advance
        self._stop = threading.Event()
        self._done = threading.Event()
        self._mutex = threading.Lock()
        self._consecutive_failures = 0
        self._outcome = Outcome()
        self._queue: queue.SimpleQueue[tuple[Journal, TurnJudgement, int]] = queue.SimpleQueue()

    def run(self, pending: Iterable[tuple[Journal, TurnJudgement, int]], threads: int) -> Outcome:
        """Request all pending judgements.

        Args:
            pending: journal, judgement and its number of replies so far.
            threads: number of parallel requests.
        """
        for one in pending:
            self._queue.put(one)
        self._active = threads
        for _ in range(threads):
            threading.Thread(target=self._run_worker, daemon=True).start()
        # An event: in Python 3.11 a join interrupted by Ctrl-C considers its thread finished.
        try:
            self._done.wait()
        except KeyboardInterrupt:
            self._stop_early("interrupted")
            print("\nfinishing the current requests; interrupt again to drop them", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                self._done.wait()
        return self._outcome

    def _run_worker(self) -> None:
        try:
            self._process_queue()
        finally:
            with self._mutex:
                self._active -= 1
                if not self._active:
                    self._done.set()

    def _process_queue(self) -> None:
        while not self._stop.is_set():
            try:
                journal, judgement, replies = self._queue.get_nowait()
            except queue.Empty:
                return
            try:
                self._request_grade(journal, judgement, replies)
            except Stopped:
                return
            except EndpointError as error:
                self._count_failure(str(error), error.final)
            except Exception as error:  # such as a full disk, which stops the other threads as well
                self._count_failure(f"{type(error).__name__}: {error}", True)

    def _request_grade(self, journal: Journal, judgement: TurnJudgement, replies: int) -> None:
        judge = self._judge
        for attempt in range(replies + 1, judge.attempts + 1):
            reply = self._endpoint.request(judge.build_request(judgement), self._stop)
            rating, pattern = find_rating(reply.text)
            journal.append(
                {
                    "question_id": judgement.question,
                    "turn": judgement.turn,
                    "repeat": judgement.repeat,
                    "attempt": attempt,
                    "rating": rating,
                    "pattern": pattern,
                    "reply": reply.text,
                    "finish": reply.finish,
                    "prompt": judgement.prompt,
                    "answer": judgement.answer,
                    "request": judgement.hash_request(judge.model, judge.temperature),
                    "model": {"asked": judge.model, "reported": reply.model},
                    "host": self._endpoint.host,
                    "temperature": judge.temperature,
                    "max_tokens": judge.max_tokens,
                    "usage": reply.usage,
                    "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                }
            )
            with self._mutex:
                self._consecutive_failures = 0
            if rating is not None:
                break
        self._advance()

    def _count_failure(self, message: str, final: bool) -> None:
        with self._mutex:
            errors = self._outcome.errors
            errors[message] = errors.get(message, 0) + 1
            self._consecutive_failures += 1
            consecutive = self._consecutive_failures
        if final:
            self._stop_early(message)
        elif consecutive >= MAX_FAILURES:
            self._stop_early(f"{consecutive} requests in a row failed")

    def _stop_early(self, reason: str) -> None:
        with self._mutex:
            self._outcome.stop_reason = self._outcome.stop_reason or reason
        self._stop.set()
