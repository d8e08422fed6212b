"""Services that follow a run: wandb or tensorboard by choice.

Not the Trainer's `report_to`: it renames the curves (`train/validation/accuracy`), and all cells of
a sweep would share the first one's wandb run.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.errors import UserError

log = logging.getLogger(__name__)

INIT_SECONDS = 30.0  # that wandb may take to reach its server
NO_SERVICE = "or without any service: tracking=local"


@dataclass(kw_only=True)
class Tracking:
    """No service: the run folder's history.jsonl alone."""

    name: str
    """Name of the conf/tracking file."""

    def problems(self) -> Iterator[str]:
        """Yield every setting that cannot be tracked with."""
        return iter(())

    def start(
        self, folder: Path, run: dict[str, Any], config: dict[str, Any], parameters: dict[str, Any]
    ) -> None:
        """Start tracking, once before training, with the run's keys, configuration and counts."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log the values of a training step or an evaluation."""

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Finish tracking with the record's metrics, or None if the run failed."""

    def describe_rest(self, run_dir: Path) -> str | None:
        """Return what is left to do for a run that ended in this folder; None for nothing."""
        return None


@dataclass(kw_only=True)
class Wandb(Tracking):
    """Weights & Biases: configuration, counts and curves; one group per table."""

    project: str
    """Project on wandb."""
    entity: str | None = None
    """Team or user on wandb; null: the login's."""
    mode: str = "online"
    """Mode: online, offline (no key, no network; `wandb sync` later) or disabled."""
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

        Without login or network this raises UserError instead of prompting or waiting.
        """
        os.environ.setdefault("WANDB_SILENT", "true")  # then wandb does not ask for a key either
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "tracking=wandb: wandb is not installed", ["pip install wandb", NO_SERVICE]
            ) from error

        try:
            mode: Any = self.mode
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                mode=mode,
                dir=folder,
                group=self.group or run["experiment"] or f"{run['model']}-{run['task']}",
                job_type=run["method"],
                name=_name(run),
                tags=[run["model"], run["task"], run["method"], *_make_tags(run), *self.tags],
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
        if self._run.url:
            log.info("wandb: %s", self._run.url)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracking.log`."""
        self._run.log(values, step=step)

    def finish(self, summary: dict[str, Any] | None) -> None:
        """See `Tracking.finish`."""
        run = getattr(self, "_run", None)
        if run is not None:  # else the run ended before it was tracked
            run.summary.update(summary or {})
            run.finish(exit_code=0 if summary is not None else 1)

    def describe_rest(self, run_dir: Path) -> str | None:
        """See `Tracking.describe_rest`."""
        if self.mode != "offline" or getattr(self, "_run", None) is None:
            return None
        folder = run_dir / "wandb" / Path(self._run.settings.sync_dir).name
        return f"wandb: kept offline; `wandb sync {shlex.quote(str(folder))}` sends it"


def _name(run: dict[str, Any]) -> str:
    """Return a name with all that tells a run from others of its sweep, as in its folder."""
    parts = [run[key] for key in ("model", "task", "method", "variant") if run.get(key)]
    return " ".join([*parts, f"seed={run['seed']}"])


def _make_tags(run: dict[str, Any]) -> list[str]:
    """Return tags that tell a table's runs from others of the same model, task and method."""
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
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.close()


TRACKINGS = (Tracking, Wandb, Tensorboard)
