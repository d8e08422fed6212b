"""Page of `train.py --help`, read off conf/ and the dataclasses.

Hydra would take seconds to compose it, and half a second to be imported.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from experiments.methods import METHODS
from experiments.models import MODELS
from experiments.training.train_config import Train

CONF = Path(__file__).resolve().parents[2] / "conf"
FOLLOWING = {  # groups that follow from another choice, and that choice
    "recipe": "source",
    "sizes": "experiment",
    "rehearsal": "profile",
    "schema": "model",
}

HELP = """\
Fine-tune a base model on a task with a method, evaluate it and record the result.

  python train.py                                              the toy of Figure 7, in seconds
  python train.py model=roberta_base task=cola method=fourierft
  python train.py model=minilm task=sst2 method=lora task.path=FOLDER train.epochs=3
  python train.py experiment=table1                            a whole table

Choices (group=option):
{groups}
Values with fixed choices:
{values}
Any value (key=value), several (key=a,b with -m), one run in full (--cfg job --resolve).
docs/runs.md explains the rest.
"""


def is_requested(arguments: Sequence[str]) -> bool:
    """Return True if a command line asks for the page."""
    return not {"--help", "-h"}.isdisjoint(arguments)


def format_help() -> str:
    """Return the page."""
    lines = []
    folders = [item for item in CONF.iterdir() if item.is_dir()] + list((CONF / "hydra").iterdir())
    for folder in sorted(folders):
        name = folder.relative_to(CONF).as_posix()
        if name not in (*FOLLOWING, "train", "hydra", "contest", "search"):
            options = sorted(path.stem for path in folder.glob("*.yaml"))
            lines.append(f"  {name:<15}{', '.join(options)}")
    parts: list[tuple[str, type]] = [("method", kind) for kind in METHODS]
    parts.append(("train", Train))
    parts += [("model", kind) for kind in MODELS]
    values = {
        f"{section}.{name}": [one.name for one in choices]
        for section, kind in parts
        for name, hint in typing.get_type_hints(kind).items()
        for choices in (hint, *typing.get_args(hint))  # X | None holds X
        if isinstance(choices, type) and issubclass(choices, Enum)
    }
    width = max(map(len, values)) + 2
    listed = [f"  {key:<{width}}{', '.join(options)}" for key, options in values.items()]
    return HELP.format(groups="\n".join(lines), values="\n".join(listed))
