"""Base class of tasks: data, the head they need, and their metrics.

Each is a dataclass that conf/task/*.yaml fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import DataError, UserError
from experiments.metrics import classification
from experiments.models.head import Head
from experiments.results.identity import LOCAL

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from experiments.hub import Download
    from experiments.hub.fingerprints import Files


SHORTEST = 4
"""Smallest `max_length`: the tokens that mark a row's ends, and two of its own."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Data to train on and to score."""

    train: Sequence[dict[str, Any]]
    """Training rows with a key `labels`."""
    evaluations: dict[str, Sequence[dict[str, Any]]]
    """Labelled rows per split; the first split selects the epoch."""
    prompts: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    """Prompts that the finished network continues or draws, per split or benchmark."""
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Function from rows to a padded batch of tensors."""
    fingerprint: str
    """Hash of the data as stored, before `train_rows` and `eval_rows`."""
    lengths: Sequence[int] | None = None
    """Tokens per training row, to batch rows of similar length; None for data without text."""
    longest: int | None = None
    """Tokens of the longest text, prompt and answer, that the network may write; None: all that it
    can read."""
    held_out: Mapping[str, Any] | None = None
    """Rows of the training data that are scored instead, for the record."""
    augmented: bool = False
    """True if a training row differs in every epoch: `train` is then indexed by
    number * len(train) + row, where each epoch of each seed has a number of its own."""


@dataclass(frozen=True, kw_only=True)
class OutputScores:
    """Metrics of a finished network's outputs."""

    scores: dict[str, dict[str, float]]
    """Values per split or benchmark and metric."""
    interval: list[float] | None = None
    """95 % bootstrap interval of the primary metric, if it has one."""
    details: dict[str, Any] = field(default_factory=dict)
    """Data and models of the evaluation, for the record."""


@dataclass(kw_only=True)
class Task:
    """Base class of tasks.

    `load` is slow and needs a processor; everything else depends on the configuration alone.
    """

    resolved: ClassVar[Sequence[str]] = ()
    """Fields that `resolve` fills in."""
    holds_out: ClassVar[bool] = False
    """True if `load` holds out training rows where there is no validation file."""
    name: str
    """Name of the conf/task file; part of the run's path."""
    metrics: list[str]
    """Functions of `experiments.metrics.classification`.

    The first is the primary one, which selects epochs and enters tables.
    """
    train_rows: int | None = None
    """Number of training rows, drawn once with a fixed seed; null: all."""
    eval_rows: int | None = None
    """Number of first rows of each evaluation split; null: all."""
    path: str | None = field(default=None, metadata=LOCAL)
    """Local folder with the data."""
    max_length: int | None = None
    """Tokens after which a row is cut; null for data without text.

    Recipes set it for any task.
    """

    @property
    def of_text(self) -> bool:
        """True if rows are text, with a length in tokens."""
        return False

    @property
    def selects(self) -> bool:
        """True if an epoch is selected by its score; False: the last one counts."""
        return True

    @property
    def selection_split(self) -> str | None:
        """Split that selects the epoch, the first evaluation of `load`.

        None for the scored split, whose best epoch is then optimistic.
        """
        return None

    @property
    def measurable(self) -> Sequence[str]:
        """Names allowed in `metrics`."""
        of_numbers = self.head.kind == "regression"
        return [
            name
            for name in classification.METRICS
            if (name in classification.REGRESSION) == of_numbers
        ]

    @property
    def head(self) -> Head:
        """Head that the task needs."""
        return Head(kind="none")

    def resolve(self) -> None:
        """Fill in what the configuration leaves to the data, such as the names of classes.

        Called once, before `problems`. A record holds what was found, so that its task needs no
        data.

        Raises:
            DataMissing: the data are not there.
            DataError: they do not say.
        """

    def resolve_as(self, found: Task) -> None:
        """Fill in what `resolve` would from the task of a finished run, whose data are gone."""
        for name in self.resolved:
            if not getattr(self, name) or not getattr(found, name):
                setattr(self, name, getattr(found, name))

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
        """Return folder or repository of the data, None for generated data.

        Raises HubUnavailable within seconds if they are not available.
        """
        return None

    def downloads(self) -> list[Download]:
        """Return the files that `load` reads of the hub if no folder is given."""
        return []

    def inputs(self) -> dict[str, Files]:
        """Return the files that `load` reads, as far as they are on this machine, by kind.

        A name means the same rows in every run of the task. The network is never used.

        Raises:
            UserError: the folder does not hold the task's data.
        """
        return {}

    def check(self) -> None:
        """Raise UserError if this machine lacks a program or package that the task needs."""

    def load(self, processor: Any, source: str | None) -> Data:
        """Read and prepare the data."""
        raise TypeError(f"task={self.name} has no data to train on; it serves mode=count only")

    def prepare_inputs(self, rows: Sequence[dict[str, Any]], processor: Any) -> list[dict]:
        """Prepare rows without labels as `load` prepares scored ones, for prediction.

        Args:
            rows: cells by column, of any table.
            processor: the model's.

        Raises:
            DataError: columns or cells are missing; every one is named.
        """
        raise UserError(f"task={self.name}: predicts nothing from a table")

    def get_collator(self, processor: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """Return the function from prepared rows to a padded batch of tensors."""
        raise TypeError(f"{type(self).__name__} has no batches")

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute every metric of the task, primary first.

        Args:
            predictions: outputs of the model, float (rows, labels).
            references: labels (rows,).
        """
        return {
            name: classification.METRICS[name](predictions, references) for name in self.metrics
        }

    def reduce(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """Reduce an evaluation batch to the predictions and references to keep, a row each."""
        return logits, labels

    def generate(
        self, net: nn.Module, processor: Any, data: Data, run_dir: Path, seed: int
    ) -> None:
        """Write the trained network's outputs for `data.prompts` below `run_dir`.

        Existing outputs are kept, so that an interrupted call continues.
        """

    def pending_prompts(self, run_dir: Path) -> dict[str, Sequence[dict[str, Any]]]:
        """Return the prompts of the settings that a finished run has not answered.

        The run does not score them, so that `generate` may be called for them at any later time.
        """
        return {}

    def evaluate_outputs(self, run_dir: Path, *, device: str = "auto") -> OutputScores | None:
        """Compute the metrics of the outputs of `generate`, from the files alone, or None.

        Args:
            run_dir: what `generate` wrote to.
            device: `train.device`, for metrics that are computed by a network.
        """
        return None


def require_cells(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Raise DataError for every column that a table lacks, and every cell without text."""
    problems = []
    for name in columns:
        if not rows or name not in rows[0]:
            there = ", ".join(rows[0]) if rows else "none"
            problems.append(f"no column {name!r} (columns: {there})")
            continue
        empty = [str(row) for row, cells in enumerate(rows, 1) if not isinstance(cells[name], str)]
        if empty:
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            problems.append(f"column {name!r} has no text in rows {', '.join(empty[:5])}{more}")
    if problems:
        raise DataError("the rows cannot be predicted", problems)


@dataclass(kw_only=True)
class NoTask(Task):
    """No data and no head: for counting a base model alone, as Table 1 does."""

    metrics: list[str] = field(default_factory=list)
