"""Judgements that are rated, failed or pending, according to a journal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from experiments.judge.benchmark_runs import TurnJudgement
from experiments.judge.journal import Entry


class JudgingStatus:
    """State of the judgements of one run.

    Only entries of the same request count. Those of other answers, prompts, models or temperatures
    stay in the journal and are ignored.

    Args:
        judgements: judgements to make.
        entries: entries of the journal.
        model: name of the judge.
        temperature: sampling temperature; None: the server's default.
        attempts: replies without a grade after which a judgement has failed.
    """

    def __init__(
        self,
        judgements: Iterable[TurnJudgement],
        entries: Iterable[Entry],
        model: str,
        temperature: float | None,
        attempts: int,
    ):
        replies: dict[tuple[Any, Any], list[Entry]] = {}
        for entry in entries:
            replies.setdefault((entry.get("request"), entry.get("repeat")), []).append(entry)
        self.rated: list[tuple[TurnJudgement, Entry]] = []
        self.failed: list[TurnJudgement] = []
        self.pending: list[tuple[TurnJudgement, int]] = []
        """With the number of replies without a grade so far."""
        self.entries: list[Entry] = []
        """Entries that count, including those without a grade."""
        for judgement in judgements:
            key = judgement.hash_request(model, temperature), judgement.repeat
            matching = replies.get(key, [])
            self.entries += matching
            rated = [entry for entry in matching if entry.get("rating") is not None]
            if rated:
                self.rated.append((judgement, rated[0]))
            elif len(matching) >= attempts:
                self.failed.append(judgement)
            else:
                self.pending.append((judgement, len(matching)))
