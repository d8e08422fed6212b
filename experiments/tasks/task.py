"""Tasks: data, the head they need, and how predictions are scored.

Each is a dataclass that conf/task/*.yaml fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments import metrics

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a task asks of a model."""

    kind: str
    """points, classification, regression or none."""
    labels: int = 0
    """Width of the output."""
    inputs: int = 0
    """Width of the input where the task decides it."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on and what is scored."""

    train: Sequence[dict[str, Any]]
    """Rows with a key `labels`."""
    evaluations: dict[str, Sequence[dict[str, Any]]]
    """Labelled rows per split; the first is what the primary metric is about."""
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Rows -> a padded batch of tensors."""
    fingerprint: str
    """Of the data as they lie there, before `train_rows` and `eval_rows`."""


@dataclass(kw_only=True)
class Task:
    """A task. `load` is slow and needs a processor.

    Everything else is known from the configuration alone.
    """

    name: str
    """Name of the conf/task file; part of the run's path."""
    metrics: list[str]
    """Functions of `experiments.metrics`.

    The first is the primary one, which selects epochs and enters tables.
    """
    train_rows: int | None = None
    """Take this many training rows, drawn once with a fixed seed; null: all."""
    eval_rows: int | None = None
    """Take the first rows of each evaluation split only; null: all."""
    path: str | None = None
    """Local folder with the data (local)."""
    max_length: int | None = None
    """Tokens after which a row is cut; null where there is no text.

    A recipe sets it before the task is known.
    """

    @property
    def of_text(self) -> bool:
        """True if rows have a length in tokens."""
        return False

    @property
    def head(self) -> Head:
        """What the task asks of a model."""
        return Head(kind="none")

    def problems(self) -> Iterator[str]:
        """Yields every setting that the task cannot work with."""
        known = sorted(metrics.METRICS)
        for name in self.metrics:
            if name not in metrics.METRICS:
                yield f"task.metrics={name}: unknown (allowed: {', '.join(known)})"
            elif (name in metrics.OF_NUMBERS) != (self.head.kind == "regression"):
                fitting = [
                    other
                    for other in known
                    if (other in metrics.OF_NUMBERS) != (name in metrics.OF_NUMBERS)
                ]
                allowed = ", ".join(fitting)
                yield f"task.metrics={name}: not for {self.head.kind} (allowed: {allowed})"
        if not self.metrics and self.head.kind != "none":
            yield "task.metrics=[]: must name at least one"
        for key in ("train_rows", "eval_rows"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                yield f"task.{key}={getattr(self, key)}: must be at least 1, or null for all"

    def locate(self, offline: bool = False) -> str | None:
        """Folder or repository of the data, None if they are made here.

        Raises HubUnavailable within seconds.
        """
        return None

    def load(self, processor: Any, source: str | None) -> Data:
        """Reads and prepares the data."""
        raise TypeError(f"task={self.name} has no data to train on; it serves mode=count only")

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Every metric of the task, primary first.

        Args:
            predictions: (rows, labels) outputs of the model, float.
            references: (rows,) labels.
        """
        return {name: metrics.METRICS[name](predictions, references) for name in self.metrics}


@dataclass(kw_only=True)
class NoTask(Task):
    """No data and no head: for counting a base model alone, as Table 1 does."""

    metrics: list[str] = field(default_factory=list)
