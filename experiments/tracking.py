"""Where a run's numbers go while it runs: JSON lines always, wandb or tensorboard by choice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import stored
from experiments.errors import RecordError, UserError

HISTORY = "history.jsonl"
PLACE = ("step", "epoch", "elapsed_s")
"""What every line says of itself."""
INIT_SECONDS = 30.0  # that wandb may take to reach its server
NO_SERVICE = "or without any service: tracking=local"


@dataclass(kw_only=True)
class Tracking:
    """No service: the run folder's history.jsonl alone."""

    name: str
    """Name of the conf/tracking file."""

    def problems(self) -> Iterator[str]:
        """Yields every setting that cannot be tracked with."""
        return iter(())

    def start(
        self, folder: Path, run: dict[str, Any], config: dict[str, Any], parameters: dict[str, Any]
    ) -> None:
        """Called once before training, with what the run is and how many numbers it trains."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Called for every training log and evaluation."""

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Called once at the end, with the record's metrics, or None if the run failed."""


@dataclass(kw_only=True)
class Wandb(Tracking):
    """Weights & Biases: configuration, counts and curves; one group per table."""

    project: str
    """wandb project."""
    entity: str | None = None
    """wandb team or user; null: the login's."""
    mode: str = "online"
    """online, offline (no key, no network; `wandb sync` later) or disabled."""
    group: str | None = None
    """Group; null: the experiment (table or figure), else model and task."""
    tags: list[str] = field(default_factory=list)
    """Tags beside model, task and method."""

    def problems(self) -> Iterator[str]:
        """See `Tracking.problems`."""
        if self.mode not in ("online", "offline", "disabled"):
            yield f"tracking.mode={self.mode}: must be online, offline or disabled"

    def start(
        self, folder: Path, run: dict[str, Any], config: dict[str, Any], parameters: dict[str, Any]
    ) -> None:
        """See `Tracking.start`.

        UserError without login or network, instead of a prompt or a long wait.
        """
        os.environ.setdefault("WANDB_SILENT", "true")  # then wandb does not ask for a key either
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "tracking=wandb: wandb is not installed", ["pip install wandb", NO_SERVICE]
            ) from error

        try:
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                mode=self.mode,
                dir=folder,
                group=self.group or run["experiment"] or f"{run['model']}-{run['task']}",
                job_type=run["method"],
                name=f"{run['model']}-{run['task']}-{run['method']}-{run['seed']}",
                tags=[run["model"], run["task"], run["method"], *_marks(run), *self.tags],
                config={**config, "parameters": parameters, "run": run},
                reinit="finish_previous",
                settings=wandb.Settings(init_timeout=INIT_SECONDS),
            )
        except wandb.errors.Error as error:
            cause = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            raise UserError(
                f"tracking.mode={self.mode}: wandb cannot start ({cause})",
                [
                    "with a network: `wandb login` first",
                    "without: tracking.mode=offline, later `wandb sync`",
                    NO_SERVICE,
                ],
            ) from error

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracking.log`."""
        self._run.log(values, step=step)

    def finish(self, summary: dict[str, Any] | None) -> None:
        """See `Tracking.finish`."""
        self._run.summary.update(summary or {})
        self._run.finish(exit_code=0 if summary is not None else 1)


def _marks(run: dict[str, Any]) -> list[str]:
    """Tags that tell a table's runs from others of the same model, task and method."""
    return [f"{key}-{run[key]}" for key in ("recipe", "profile") if run.get(key)]


@dataclass(kw_only=True)
class Tensorboard(Tracking):
    """TensorBoard event files in the run folder's `tensorboard/`."""

    def start(
        self, folder: Path, run: dict[str, Any], config: dict[str, Any], parameters: dict[str, Any]
    ) -> None:
        """See `Tracking.start`."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "tracking=tensorboard: tensorboard is not installed",
                ["pip install tensorboard", NO_SERVICE],
            ) from error

        self._writer = SummaryWriter(folder / "tensorboard")
        self._writer.add_text(
            "config", f"```json\n{json.dumps(config, indent=2, default=str)}\n```"
        )
        for name, value in parameters.items():
            self._writer.add_scalar(f"parameters/{name}", value)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracking.log`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, summary: dict[str, Any] | None) -> None:
        """See `Tracking.finish`."""
        self._writer.close()


class History:
    """history.jsonl: one line per training log and per evaluation.

    Cut back to the checkpoint when a run resumes.
    """

    def __init__(self, folder: Path, tracking: Tracking):
        self.path, self.tracking = folder / HISTORY, tracking

    def lines(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return read_history(self.path.parent)

    def elapsed(self) -> float:
        """Seconds spent up to the last line."""
        return max((line["elapsed_s"] for line in self.lines()), default=0.0)

    def cut(self, step: int) -> None:
        """Drops what lies behind `step`."""
        kept = [line for line in self.lines() if line["step"] <= step]
        replacement = self.path.with_suffix(".tmp")
        replacement.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(replacement, self.path)

    def log(self, step: int, epoch: float, elapsed: float, values: dict[str, float]) -> None:
        """Appends a line and passes the values on to the service."""
        line = {"step": step, "epoch": round(epoch, 6), "elapsed_s": round(elapsed, 3), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.tracking.log(step, {"epoch": epoch, **values})


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Lines of a run's history; a line cut off by a kill is left out.

    Raises:
        RecordError: it is not a regular file of text, or a line lacks its numbers.
    """
    path = folder / HISTORY
    lines = []
    text = stored.read_text(path) if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = stored.parse_json(line)
        except ValueError:
            break
        if not isinstance(found, dict) or not all(_is_finite(found.get(key)) for key in PLACE):
            wanted = ", ".join(PLACE)
            raise RecordError(f"{path}, line {number}: damaged, not an object with {wanted}")
        lines.append(found)
    return lines


def _is_finite(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and abs(value) <= stored.MOST


TRACKINGS = (Tracking, Wandb, Tensorboard)
