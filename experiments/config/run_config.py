"""Configuration of one run as typed objects, checked without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING

from experiments.methods import METHODS, Method
from experiments.methods.fourierft import MemoryMode
from experiments.models import MODELS, Model
from experiments.results.identity import BEFORE, LOCAL, find_local, flatten
from experiments.tasks import TASKS, Task
from experiments.training.tracking import Tracking
from experiments.training.train_config import Precision, Sharding, Train


class Mode(Enum):
    """Action that is taken with the composed run."""

    train = "train"
    count = "count"

    @property
    def trains(self) -> bool:
        """False if only shapes are needed."""
        return self is Mode.train


@dataclass(kw_only=True)
class Config:
    """One run."""

    mode: Mode = Mode.train
    """train, or count: build, wrap, count and record without weights, data or training."""
    model: Model = MISSING
    """The base model."""
    task: Task = MISSING
    """Data and metrics."""
    method: Method = MISSING
    """Fine-tuning method."""
    train: Train | None = MISSING
    """Optimisation; None for mode=count."""
    tracking: Tracking = field(default=MISSING, metadata=LOCAL)
    """Destination of metrics during the run."""
    source: str = field(default=MISSING, metadata=LOCAL)
    """Requested source of hyperparameters: paper, printed, authors, ours or none."""
    recipe: str = "none"
    """Source that was found: the folder of conf/recipe that the values come from."""
    experiment: str | None = field(default=None, metadata=LOCAL)
    """Table or figure that the run belongs to."""
    profile: str | None = None
    """smoke: a smoke test on tiny sizes."""
    seed: int = 0
    """Seed of head, adapter, data order and dropout."""
    row: int = field(default=0, metadata=LOCAL)
    """Row of a table whose sizes differ per model (Table 1 counts two per model)."""
    force: bool = field(default=False, metadata=LOCAL)
    """Repeat a finished run in place; the old one is moved aside."""
    retry_failed: bool = field(default=False, metadata=LOCAL)
    """Run the failed cells of a sweep again; one run alone always starts again."""
    offline: bool = field(default=False, metadata=LOCAL)
    """Never use the network."""
    output: str = field(default="outputs", metadata=LOCAL)
    """Folder of all runs."""
    variant: str = field(default="", metadata={"computed": True, **LOCAL})
    """Differences from the recipe, as in the name of the run folder; computed."""

    @property
    def training(self) -> Train:
        """The optimisation of a run that trains."""
        if self.train is None:
            raise TypeError("mode=count has no optimisation")
        return self.train

    @staticmethod
    def identify(config: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a plain configuration that identify a run, with dotted keys."""
        return {
            key: value
            for section, local in IDENTITY.items()
            for key, value in flatten({section: config.get(section)}).items()
            if local.isdisjoint(key.split(".")[1:2]) and LATER.get(key, MISSING) != value
        }

    def problems(self) -> Iterator[str]:
        """Yield every problem, each with key, value and what is allowed."""
        for key in ("seed", "row"):
            if getattr(self, key) < 0:
                yield f"{key}={getattr(self, key)}: must not be negative"
        if not self.output:
            yield "output=: must name a folder"
        yield from self._without_schema()
        for part in (self.task, self.method, self.tracking, self.train):
            if part is not None:
                yield from part.problems()
        kind = self.task.head.kind
        if kind not in self.model.heads:
            offered = ", ".join(map(repr, self.model.heads))
            yield (
                f"model={self.model.name}: task={self.task.name} needs a {kind!r} head, "
                f"this model offers {offered}"
            )
        yield from self.model.problems()
        fits = kind in self.model.heads and kind != "none"
        side, factor = getattr(self.task, "resolution", None), self.model.factor
        if fits and side is not None and side % factor:
            yield (
                f"task.resolution={side}: must be a multiple of {factor}, the pixels of one "
                f"latent cell of model={self.model.name}"
            )
        if fits and self.train is not None:
            yield from self.train.problems_with(self.task)
            yield from self._find_unrelated_rates(self.train)
        if self.model.quantization is not None and self.method.trains_base:
            yield (
                f"method={self.method.name}: trains the base weights themselves, which "
                f"model.quantization={self.model.quantization.value} freezes (allowed: adapters)"
            )
        if self.mode.trains and self.task.head.kind == "none":
            yield f"task={self.task.name}: has no training data (allowed with mode=count only)"
        if self.mode.trains and self.method.trains_head_only and not self.model.head:
            yield (
                f"method={self.method.name}: trains the head alone, "
                f"and model={self.model.name} has none"
            )

        yield from self._unsharded()

    def _find_unrelated_rates(self, train: Train) -> Iterator[str]:
        """Yield what `train.relative_rate=true` needs and does not find."""
        if not train.relative_rate:
            return
        key = "train.relative_rate=true"
        if not self.method.has_step_sizes:
            yield f"{key}: method={self.method.name} has one rate (allowed: method=fourierft)"
        if self.model.head and self.task.head.kind != "language" and not train.head_learning_rate:
            yield f"{key}: the head needs a rate of its own, train.head_learning_rate"

    def _unsharded(self) -> Iterator[str]:
        """Yield every part of the run that `train.sharding=fsdp` cannot divide."""
        if self.train is None or self.train.sharding is not Sharding.fsdp:
            return
        asked = "train.sharding=fsdp"
        if self.train.precision is Precision.fp16:
            yield f"{asked}: train.precision=fp16 is not scaled across parts (allowed: fp32, bf16)"
        if not self.model.shardable:
            yield (
                f"{asked}: model={self.model.name} is not divided by blocks "
                "(allowed: encoders, language models and vision transformers; else none)"
            )
        if self.model.quantization is not None:
            yield (
                f"{asked}: model.quantization={self.model.quantization.value} cannot be divided "
                "(allowed: train.sharding=none, a whole quantised model on each GPU)"
            )
        memory = getattr(self.method, "memory", MemoryMode.recompute)
        if memory not in (MemoryMode.auto, MemoryMode.recompute):
            yield (
                f"{asked}: method.memory={memory.value} may keep whole weights "
                "(allowed: auto, recompute)"
            )
        if not self.method.shardable:
            yield (
                f"{asked}: method={self.method.name} needs whole parameters between steps "
                "(allowed: fourierft, lora, full, bitfit, linear_probe)"
            )

    def _without_schema(self) -> Iterator[str]:
        """Yield the files of conf/ that name no class, so that nothing implements them."""
        for group, kind in (("model", Model), ("task", Task), ("method", Method)):
            part = getattr(self, group)
            if type(part) is kind:
                yield (
                    f"{group}={part.name}: its file names no class (write "
                    f"`defaults: [/schema/{group}/CLASS@_here_]`, as the others of conf/{group}/)"
                )


_CLASSES: dict[str, tuple[type, ...]] = {
    "model": MODELS,
    "task": TASKS,
    "method": METHODS,
    "train": (Train,),
}
IDENTITY: dict[str, frozenset[str]] = {
    entry.name: find_local(*_CLASSES.get(entry.name, ()))
    for entry in fields(Config)
    if entry.name not in find_local(Config)
}
"""Sections of the configuration that identify a run, each with its fields that do not."""

LATER = {
    f"{section}.{entry.name}": entry.metadata[BEFORE]
    for section, kinds in _CLASSES.items()
    for kind in kinds
    for entry in fields(kind)
    if BEFORE in entry.metadata
}
"""Fields that older records lack, with the value that these have: it identifies no run."""


def identify_by(section: str, kind: type) -> None:
    """Let the fields of a further class identify runs, except for its local ones."""
    IDENTITY[section] |= find_local(kind)
    LATER.update(
        {
            f"{section}.{entry.name}": entry.metadata[BEFORE]
            for entry in fields(kind)
            if BEFORE in entry.metadata
        }
    )
