"""Inputs of a run: fingerprints of its weights, tokenizer, data and private code.

A run is identified by the content of its inputs, not by their location. Fingerprints are written to
inputs.json before training, and to the record. Before a run folder is taken as the outcome of a
command, they are compared as far as the inputs are on this machine: a run whose data are gone stays
finished.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import DataError, RecordError, UserError
from experiments.files import write_atomically
from experiments.hub.fingerprints import (
    Files,
    compute_fingerprint,
    compute_size,
    find_weights,
    read_remembered,
)
from experiments.results import stored
from experiments.results.record import Record

INPUTS_FILE = "inputs.json"
MODEL = ("weights", "model settings", "tokenizer")
"""Inputs that the base model has, whatever the task."""
CODE = "code of "
BUILT_IN = {
    "methods": "adalora bottleneck dylora fourierft method peft selective",
    "models": "diffusion encoder language mlp model transformer vision",
    "tasks": "completions dreambooth e2e glue images instruction language pictures sentences task "
    "text toy",
}
"""Modules of this project with methods, models and tasks, which the commit identifies. Any other
module is private, and its source is an input."""

Inputs = dict[str, dict[str, Any]]
"""Fingerprint, number of files, bytes and folder of each input, by name."""


def describe(config: Any, max_bytes: float | None = None) -> Inputs:
    """Describe every input of a run that is on this machine.

    Args:
        config: the run.
        max_bytes: size of the largest input that is read; larger ones are left out unless their
            fingerprint is remembered. None: everything is read.
    """
    found: Inputs = {}
    for name, files in _find_files(config):
        try:
            amount = compute_size(files)
            within = max_bytes is None or amount <= max_bytes
            mark = compute_fingerprint(files) if within else read_remembered(files)
        except OSError:
            continue  # gone, or not to be read: the run itself says so
        if mark is not None:
            found[name] = {
                "fingerprint": mark,
                "files": len(files.paths),
                "bytes": amount,
                "place": _find_folder(files),
            }
    return found


def _find_files(config: Any) -> Iterator[tuple[str, Files]]:
    """Yield the inputs that a run reads, except those without files on this machine."""
    model, parts = config.model, [config.task]
    if not config.mode.trains:
        model, parts = dataclasses.replace(model, pretrained=False), []
    for part in (model, *parts):
        try:
            found = part.inputs()
        except (UserError, OSError, RuntimeError):  # no home folder
            continue
        for name, files in found.items():
            if files.paths and (config.mode.trains or name != "tokenizer"):
                yield name, files
    for kind in ("method", "model", "task"):
        part = getattr(config, kind)
        paths = _find_private_sources(type(part), f"{kind}s")
        if paths:
            yield f"{CODE}{kind} {part.name}", Files(paths=paths)


def _find_private_sources(kind: type, package: str) -> list[Path]:
    """Return the source files of a class from outside this project, including its whole package."""
    shipped = {f"experiments.{package}.{name}" for name in BUILT_IN[package].split()}
    top = kind.__module__.partition(".")[0]
    found: set[Path] = set()
    for name in {one.__module__ for one in kind.__mro__} - shipped:
        source = getattr(sys.modules.get(name), "__file__", None)
        if source is None or name.partition(".")[0] != top:
            continue  # built in, or a library's
        found.add(Path(source))
        depth = name.count(".") + (Path(source).name == "__init__.py")
        if depth and top != "experiments":
            found |= {*Path(source).parents[depth - 1].rglob("*.py")}
    return sorted(found)


def _find_folder(files: Files) -> str:
    """Return the folder of the files, or the file if there is one."""
    return str(files.paths[0] if len(files.paths) == 1 else files.below or files.paths[0].parent)


def write_inputs(work: Path, config: Any, run_dir: Path, before: Inputs) -> Inputs:
    """Write down the inputs of a run, once it has read them.

    Args:
        work: folder that the run writes to.
        config: the run.
        run_dir: the run folder, as messages name it.
        before: `describe` before they were read; downloads are here since then.

    Raises:
        DataError: they have changed since.
        RecordError: an interrupted run there began with other inputs.
    """
    now = describe(config)
    wrong = find_differences(before, now)
    if wrong:
        raise DataError(f"{run_dir}: its inputs changed while they were read; run it again", wrong)
    wrong = find_differences(read_inputs(work), now)
    if wrong:
        raise _build_error(run_dir, None, wrong)
    _write(work, now)
    return now


def pin_inputs(folder: Path, config: Any) -> None:
    """Keep a search to the inputs of its first trial, so that its trials can be compared.

    Raises:
        RecordError: its earlier trials began with something else.
    """
    known, now = read_inputs(folder), describe(config)
    wrong = find_differences(known, now)
    if wrong:
        raise RecordError(
            f"{folder}: its trials began with other inputs (output=FOLDER searches elsewhere)",
            wrong,
        )
    _write(folder, known | now)


def _write(folder: Path, inputs: Inputs) -> None:
    if inputs:
        write_atomically(folder / INPUTS_FILE, json.dumps(inputs, indent=2) + "\n")


def have_changed(run_dir: Path, config: Any, max_bytes: float | None = None) -> bool:
    """Return True if an unfinished run in a folder began with other inputs."""
    known = read_inputs(run_dir)
    return bool(known and find_differences(known, describe(config, max_bytes)))


def check(
    run_dir: Path, config: Any, record: Record | None, max_bytes: float | None = None
) -> None:
    """Raise RecordError if the run in a folder has other inputs than the present ones.

    Args:
        run_dir: the run folder.
        config: the requested run.
        record: record of the finished run there; None for an interrupted one.
        max_bytes: see `describe`.
    """
    known = read_inputs(run_dir) if record is None else get_inputs(record)
    now = describe(config, max_bytes) if known else {}
    wrong = find_differences(known, now)
    if config.task.holds_out and max_bytes is None and "train data" in known.keys() & now.keys():
        # Without a validation file, rows of the train file are scored: other ones.
        for name in sorted(one for one in known.keys() ^ now.keys() if one.endswith(" data")):
            told = [_format_input(some[name]) if name in some else "none" for some in (now, known)]
            wrong.append(f"{name}: found {told[0]}, expected {told[1]}")
    if wrong:
        raise _build_error(run_dir, record, wrong)


def check_model(run_dir: Path, config: Any, record: Record) -> None:
    """Check the base model that was just built, as `check` does; data are no longer needed."""
    known = {
        name: one
        for name, one in get_inputs(record).items()
        if name in MODEL or name.startswith(CODE)
    }
    now = describe(config)
    wrong = find_differences(known, now)
    if "weights" in known and "weights" not in now:
        wrong.append(f"weights: found none, expected {_format_input(known['weights'])}")
    if wrong:
        raise RecordError(
            f"{run_dir}: the base model is not the one that the run began with", wrong
        )


def get_inputs(record: Record) -> Inputs:
    """Return the inputs of a finished run; earlier versions recorded the weights alone."""
    found = record.environment.get("inputs")
    if found is None:
        found = {"weights": {"fingerprint": record.environment.get("weights")}}
    return _keep_comparable(found)


def find_weight_files(record: Record) -> list[Path]:
    """Return the weights that a finished run read, if the same ones still lie there.

    Raises:
        OSError: they cannot be read.
    """
    known = get_inputs(record).get("weights") or {}
    place = known.get("place")
    if not isinstance(place, str):
        return []
    path = Path(place)
    files = find_weights(path) if path.is_dir() else Files(paths=[path])
    if not files.paths or compute_size(files) != known.get("bytes"):  # spares reading most others
        return []
    same = compute_fingerprint(files) == known["fingerprint"]
    return [one for one in files.paths if one.suffix == ".safetensors"] if same else []


def read_inputs(run_dir: Path) -> Inputs:
    """Return the inputs that the run in a folder began with; empty if unknown."""
    try:
        return _keep_comparable(stored.read_json(run_dir / INPUTS_FILE))
    except RecordError:
        return {}


def _keep_comparable(found: Any) -> Inputs:
    """Keep the inputs read from a file that can be compared."""
    if not isinstance(found, dict):
        return {}
    return {
        str(name): one
        for name, one in found.items()
        if isinstance(one, dict) and isinstance(one.get("fingerprint"), str)
    }


def find_differences(known: Inputs, now: Inputs) -> list[str]:
    """Return one line per input that is known on both sides and has changed."""
    return [
        f"{name}: found {_format_input(now[name])}, expected {_format_input(known[name])}"
        for name in known
        if name in now and known[name]["fingerprint"] != now[name]["fingerprint"]
    ]


def find_changed(one: Record, other: Record) -> list[str]:
    """Return the names of inputs in which two finished runs differ, as far as both are known."""
    left, right = get_inputs(one), get_inputs(other)
    return [
        name
        for name in left
        if name in right and left[name]["fingerprint"] != right[name]["fingerprint"]
    ]


def get_part(name: str) -> str:
    """Return the part of a run that an input belongs to: model, task or method."""
    if name in MODEL:
        return "model"
    return name.removeprefix(CODE).partition(" ")[0] if name.startswith(CODE) else "task"


def _format_input(one: dict[str, Any]) -> str:
    """Describe an input briefly."""
    files, amount = one.get("files"), one.get("bytes")
    about = [] if one.get("place") is None else [stored.make_printable(one["place"])]
    if isinstance(files, int) and isinstance(amount, int):
        about.append(f"{files} file{'s' * (files != 1)} of {amount:,} bytes")
    mark = stored.make_printable(one["fingerprint"])[:12]
    return f"{mark} ({', '.join(about)})" if about else mark


def _build_error(run_dir: Path, record: Record | None, wrong: list[str]) -> RecordError:
    state = "an interrupted" if record is None else "a finished"
    again = "starts anew" if record is None else "repeats in place"
    return RecordError(
        f"{run_dir} holds {state} run that began with other inputs "
        f"(output=FOLDER runs this one elsewhere; force=true {again} and moves the old run aside)",
        wrong,
    )
