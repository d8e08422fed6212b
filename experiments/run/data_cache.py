"""Weights, processor and data of a run; the next cell of a sweep takes over what it can."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.hub import fingerprints
from experiments.results.identity import to_plain

if TYPE_CHECKING:
    from experiments.config.run_config import Config
    from experiments.models import Model
    from experiments.tasks import Data, Task

_last: tuple[Any, Any, Data] | None = None
"""Their sources, and the two. One suffices: sweeps vary method and seed fastest."""


def locate(config: Config) -> tuple[str | None, str | None]:
    """Return the paths of weights and data.

    Raises:
        UserError: either or both are missing.
    """
    places: list[str | None] = []
    errors: list[UserError] = []
    for part in (config.model, config.task):
        try:
            places.append(part.locate(config.offline))
        except UserError as error:
            errors.append(error)
    if len(errors) > 1:
        lines = ["\n      ".join([error.summary, *error.problems]) for error in errors]
        raise UserError("neither weights nor data are here", lines)
    if errors:
        raise errors[0]
    return places[0], places[1]


def load(
    model: Model, task: Task, weights: str | None, rows: str | None, *, device: str = "auto"
) -> tuple[Any, Data]:
    """Load a task's data with the model's processor, once for equal cells in a row.

    Data are read-only to a run, so that nothing of one reaches the next. Latent spaces hold
    networks and are made anew.

    Args:
        model: whose processor reads the rows.
        task: whose rows are read.
        weights: where `Model.locate` found the weights.
        rows: where `Task.locate` found the data; a local file that changed is read again, a
            download is not looked at again within one process.
        device: `train.device`, for processors that compute.
    """
    global _last
    made_from = (type(model), to_plain(model), type(task), to_plain(task), weights, rows)
    made_from += tuple(map(_list_stamps, (weights, rows, getattr(task, "questions", None))))
    if _last is not None and _last[0] == made_from:
        return _last[1:]
    _last = None  # before the next one is loaded: memory for one
    processor = model.processor(weights, device=device)
    data = task.load(processor, rows)
    if task.head.kind != "denoising":
        _last = made_from, processor, data
    return processor, data


def _list_stamps(place: str | None) -> list[tuple[Any, ...]]:
    """Names and stamps of a file, or of the files of a folder."""
    if place is None or not Path(place).exists():
        return []
    if not Path(place).is_dir():
        return [(place, *fingerprints.get_stamp(place))]
    found = []
    for folder, _, names in os.walk(place):
        for name in names:
            path = os.path.join(folder, name)
            try:
                found.append((path, *fingerprints.get_stamp(path)))
            except OSError:  # a link that leads nowhere, or what another program just removed
                found.append((path, -1))
    return sorted(found)
