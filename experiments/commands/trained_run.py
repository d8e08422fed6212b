"""A finished run, in its folder or exported, with the base model that its adapter belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import hub
from experiments.config import plugins
from experiments.config.restore import restore_config
from experiments.errors import RecordError, UserError
from experiments.results import inputs, kept_adapter, stored
from experiments.results.record import RECORD, Record, read_record
from experiments.results.stored import make_printable

if TYPE_CHECKING:
    from torch import nn

    from experiments.config.run_config import Config

ADAPTER = 2**40
"""Largest size of an adapter file in bytes; full fine-tuning stores the whole model."""
ALLOWED = ("model.path", "model.tokenizer", "offline")
"""Keys of the record that may be overridden."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run."""

    folder: Path
    """Folder with the record."""
    adapter: Path
    """Folder with what was trained."""
    record: Record
    config: Config
    weights: str | None
    """Where the weights of the base model are."""


def open_run(
    folder: Path,
    changes: Sequence[str],
    allowed: Sequence[str] = ALLOWED,
    *,
    locate: bool = True,
) -> TrainedRun:
    """Read the record of a run, and find its adapter and its base model.

    Args:
        folder: a run folder, or an adapter exported from one.
        changes: `key=value` for some of `allowed`.
        allowed: keys of the record that may be overridden.
        locate: look for the weights of the base model.

    Raises:
        UserError: not a finished run with an adapter, or weights that are missing.
    """
    changes = plugins.take_plugins(changes)
    changes = [one for one in changes if not one.startswith("hydra.searchpath=")]
    wrong = [change for change in changes if change.partition("=")[0] not in allowed]
    if wrong:
        named = ", ".join(allowed)
        raise UserError("invalid options", [f"{one} (allowed: {named})" for one in wrong])
    if not (folder / RECORD).is_file():
        raise RecordError(f"{folder}: no {RECORD}, not a finished run")
    record = read_record(folder)
    config = restore_config(record.config, [*changes])
    exported = any((folder / name).is_file() for name in kept_adapter.MAIN_FILES)
    adapter = folder if exported else folder / kept_adapter.FOLDER
    if not adapter.is_dir():
        raise RecordError(f"{folder}: no adapter (mode={config.mode.value})")
    if config.offline:
        hub.go_offline()
    return TrainedRun(
        folder=folder,
        adapter=adapter,
        record=record,
        config=config,
        weights=config.model.locate(config.offline) if locate else None,
    )


def build_base(run: TrainedRun) -> nn.Module:
    """Build the base model of a run, and check it and the adapter against the record.

    Raises:
        UserError: the weights are not those of the run, or the adapter is not the recorded one.
    """
    from experiments.run import build

    _check_counts(run.config, run.record)
    try:
        net = build.build_base(run.config, run.weights)  # downloads, if need be
    except (RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise RecordError(
            f"{run.folder}: its base model cannot be built ({make_printable(error)[:300]})"
        ) from error
    inputs.check_model(run.folder, run.config, run.record)
    for path in run.adapter.rglob("*"):
        if not path.is_dir():
            stored.check_file(path, ADAPTER)
    kept_adapter.check(run.adapter, run.record)
    return net


def _check_counts(recorded: Config, record: Record) -> None:
    """Raise RecordError if the recorded sizes do not give the recorded parameter counts.

    Otherwise a corrupt number could exhaust the memory. Pretrained weights are compared with the
    sizes when they are read.
    """
    if recorded.model.pretrained:
        return
    from experiments.run.build import count_parameters

    sizes, base = getattr(recorded.model, "sizes", {}), record.parameters.get("base") or 0
    layers = sizes.get("num_hidden_layers", sizes.get("n_layer", 1))
    width = sizes.get("hidden_size", sizes.get("n_embd", 1))
    problem = f"{layers!r:.30} layers of {width!r:.30}"
    if not isinstance(layers, int) or not isinstance(width, int) or layers * width <= base:
        try:  # shapes alone, without memory
            net = recorded.model.build(recorded.task.head, None, meta=True)
            net = recorded.method.apply(net, recorded.model.head)
            counts = count_parameters(net, recorded.model.head)
        except UserError:
            raise
        except Exception:  # as many kinds as there are architectures; said where it is built
            return
        names = ("adapter", "head", "base")
        problem = ", ".join(
            f"{name} {counts[name]:,} (recorded: {record.parameters.get(name)})"
            for name in names
            if counts[name] != record.parameters.get(name)
        )
    if problem:
        raise RecordError("the recorded sizes do not give the recorded parameter counts", [problem])
