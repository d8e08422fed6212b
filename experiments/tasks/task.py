"""Tasks: data, the head they need, and how predictions are scored.

Each is a dataclass that conf/task/*.yaml fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.metrics import classification
from experiments.models.head import Head

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from experiments.hub import Download
    from experiments.hub.fingerprints import Files


SHORTEST = 4
"""Tokens of a row: those that mark its ends, and two of its own."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on and what is scored."""

    train: Sequence[dict[str, Any]]
    """Rows with a key `labels`."""
    evaluations: dict[str, Sequence[dict[str, Any]]]
    """Labelled rows per split; by the first one an epoch is chosen."""
    prompts: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    """What the finished network continues or draws, per split or benchmark."""
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Rows -> a padded batch of tensors."""
    fingerprint: str
    """Of the data as they lie there, before `train_rows` and `eval_rows`."""
    lengths: Sequence[int] | None = None
    """Tokens per training row, for batches of rows of like length; None where there is no text."""
    longest: int | None = None
    """Tokens of the longest text, prompt and answer, that the network may write; None: as many as
    it reads."""
    augmented: bool = False
    """True if a training row looks different in every epoch: `train` is then indexed by
    number * len(train) + row, which alone decides how; each epoch of each seed has a number."""


@dataclass(frozen=True, kw_only=True)
class OutputScores:
    """Metrics of what a finished network produced."""

    scores: dict[str, dict[str, float]]
    """Values per split or benchmark and metric."""
    interval: list[float] | None = None
    """95 % bootstrap interval of the primary metric, where there is one."""
    details: dict[str, Any] = field(default_factory=dict)
    """Data and models of the evaluation, for the record."""


@dataclass(kw_only=True)
class Task:
    """A task. `load` is slow and needs a processor.

    Everything else is known from the configuration alone.
    """

    name: str
    """Name of the conf/task file; part of the run's path."""
    metrics: list[str]
    """Functions of `experiments.metrics.classification`.

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
    def selects(self) -> bool:
        """True if an epoch is chosen by its score; False: the last one counts."""
        return True

    @property
    def selection_split(self) -> str | None:
        """Split by which an epoch is chosen, the first evaluation of `load`; None: the scored one,
        whose best epoch then flatters."""
        return None

    @property
    def measurable(self) -> Sequence[str]:
        """Name that `metrics` may hold."""
        of_numbers = self.head.kind == "regression"
        return [
            name
            for name in classification.METRICS
            if (name in classification.OF_NUMBERS) == of_numbers
        ]

    @property
    def head(self) -> Head:
        """What the task asks of a model."""
        return Head(kind="none")

    def problems(self) -> Iterator[str]:
        """Yield every setting that the task cannot work with."""
        fitting = self.measurable if self.head.kind != "none" else ()
        for name in self.metrics:
            if name not in fitting:
                allowed = ", ".join(sorted(fitting)) or "none"
                yield f"task.metrics={name}: not for {self.head.kind} (allowed: {allowed})"
        if not self.metrics and self.head.kind != "none":
            yield "task.metrics=[]: must name at least one"
        for key in ("train_rows", "eval_rows"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                yield f"task.{key}={getattr(self, key)}: must be at least 1, or null for all"

        if self.max_length is not None and self.max_length < SHORTEST:
            yield f"task.max_length={self.max_length}: must be at least {SHORTEST}"

    def locate(self, offline: bool = False) -> str | None:
        """Folder or repository of the data, None if they are made here.

        Raises HubUnavailable within seconds.
        """
        return None

    def downloads(self) -> list[Download]:
        """What `load` reads of the hub where no folder is given."""
        return []

    def inputs(self) -> dict[str, Files]:
        """Files that `load` reads where they are on this machine, by what they are.

        A name stands for the same rows in every run of the task. The network is never asked.

        Raises:
            UserError: the folder is not what the task reads.
        """
        return {}

    def check(self) -> None:
        """Raise UserError if this machine lacks a program or package that the task needs."""

    def load(self, processor: Any, source: str | None) -> Data:
        """Read and prepares the data."""
        raise TypeError(f"task={self.name} has no data to train on; it serves mode=count only")

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Every metric of the task, primary first.

        Args:
            predictions: (rows, labels) outputs of the model, float.
            references: (rows,) labels.
        """
        return {
            name: classification.METRICS[name](predictions, references) for name in self.metrics
        }

    def reduce(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """What is kept of an evaluation batch: predictions and references, a row each (tensors)."""
        return logits, labels

    def generate(
        self, net: nn.Module, processor: Any, data: Data, run_dir: Path, seed: int
    ) -> None:
        """Write below `run_dir` what the trained network makes of `data.prompts`.

        What is there already is kept: an interrupted call goes on.
        """

    def pending_prompts(self, run_dir: Path) -> dict[str, Sequence[dict[str, Any]]]:
        """Prompts that the settings ask a finished run for and that it has not answered.

        They are not scored by the run, so that `generate` may be called for them at any later time.
        """
        return {}

    def evaluate_outputs(self, run_dir: Path) -> OutputScores | None:
        """Metrics of what `generate` wrote, from the files alone; None if it writes nothing."""
        return None


@dataclass(kw_only=True)
class NoTask(Task):
    """No data and no head: for counting a base model alone, as Table 1 does."""

    metrics: list[str] = field(default_factory=list)
