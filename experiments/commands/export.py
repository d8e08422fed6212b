"""Write a finished run for use elsewhere: `python -m experiments.export RUN OUT`.

The adapter is merged into the weights, and GPT-2's q, k and v are one matrix again, so that
`from_pretrained(OUT)` of transformers (or diffusers) works without this project. If the base
model's weights have moved, add `model.path=FOLDER` after OUT. --push-to-hub uploads OUT.

With --adapter the adapter stays apart, with its card, for PEFT and `experiments.predict`. With
--lora it stays apart as LoRA that PEFT loads without this project: exact for runs of FourierFT with
`method.entry_rows`. With --lora --rank R the updates of any run of FourierFT are truncated to rank
R, and a table says what that loses in every layer, at R = 8, 16, 32, 64 too. With --compact TYPE
OUT is one file, NAME.safetensors, for `fourierft.import_compact`, a bank or the server.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import console
from experiments.commands import adapter_card, hub_upload, trained_run
from experiments.commands.trained_run import ALLOWED, TrainedRun
from experiments.errors import UserError
from experiments.files import set_default_mode
from experiments.methods.fourierft import FourierFT
from experiments.results import kept_adapter
from experiments.results.record import Record, write_record

if TYPE_CHECKING:
    from torch import nn

PLACES = {"task": ("path", "questions"), "model": ("path", "tokenizer")}
"""Settings that name folders of this machine, by their part of a record."""
COMMAND = "experiments.export"
COMPACT = ".safetensors"
SHARED = ("inputs", "data", "rows", "held_out", "weights", "device", "matmul", "ranks")
"""What an exported record tells of the machine."""


def export_model(
    folder: Path, to: Path, changes: list[str], lora: bool = False, rank: int | None = None
) -> None:
    """Build the base model of a run, load the kept epoch's adapter into it, and save it.

    Args:
        folder: a run folder with metrics.json.
        to: folder that does not exist yet.
        changes: `key=value` for some of ALLOWED.
        lora: write the adapter alone, as LoRA.
        rank: with `lora`, rank to truncate the updates to.

    Raises:
        UserError: nothing to export, weights that are missing or not the run's, or `to` exists.
    """
    _refuse_existing(to)
    run = trained_run.open_run(folder, changes)
    config = run.config
    exact = getattr(config.method, "entry_rows", None) is not None
    truncates = rank is not None and hasattr(config.method, "entry_rows")
    if lora and not (exact or truncates):
        raise UserError(
            f"{folder}: not exactly a LoRA adapter (method={config.method.name}, "
            "method.entry_rows=null); export it merged, without --lora, or truncate FourierFT's "
            "updates with --lora --rank 16"
        )
    net = trained_run.build_base(run)

    from experiments.models.gpt2_attention import fuse_attention

    if config.model.quantization is not None:
        net = net.dequantize()  # exactly the values that the adapter was trained on
    if lora:
        _write_folder(to, lambda draft: _write_lora(run, net, draft, rank))
        return
    net = fuse_attention(config.method.restore(net, run.adapter))
    plain = config.model.plain(net, run.weights)
    if plain is None:
        raise UserError(
            f"model={config.model.name}: not a model of transformers or diffusers, "
            "nothing to export"
        )
    processor = config.model.processor(run.weights)

    def write(draft: Path) -> None:
        plain.save_pretrained(draft)
        if hasattr(processor, "save_pretrained"):  # of diffusion, it is in the pipeline
            processor.save_pretrained(draft)

    _write_folder(to, write)


def _write_lora(run: TrainedRun, net: nn.Module, to: Path, rank: int | None) -> None:
    """Write the adapter as LoRA for the model as transformers builds it.

    Raises:
        UserError: the run's network has other modules than that model, or not that rank.
    """
    from fourierft import export_lora, lora_errors
    from fourierft.lora_export import RANKS, table_of_errors

    restored = _restore_apart(run, net)
    try:
        with warnings.catch_warnings(record=True) as told:
            export_lora(restored, to, rank=rank)
    except ValueError as error:
        raise UserError(str(error)) from error
    if rank is not None:
        print("lost of |DeltaW| as LoRA of rank r:")
        print(table_of_errors(lora_errors(restored, ranks=sorted({*RANKS, rank}))))
    for warning in told:
        print(f"{COMMAND}: {warning.message}", file=sys.stderr)


def _restore_apart(run: TrainedRun, net: nn.Module) -> Any:
    """Return the model of PEFT, if transformers' model has the same modules.

    Raises:
        UserError: it has not.
    """
    from experiments.models.gpt2_attention import SplitAttention

    split = any(isinstance(part, SplitAttention) for part in net.modules())
    if split or not hasattr(net, "save_pretrained"):
        raise UserError(
            f"model={run.config.model.name}: its adapted modules are not those of transformers' "
            "model; export it merged"
        )
    return run.config.method.restore(net, run.adapter, merged=False)


def export_compact_file(folder: Path, to: Path, changes: list[str], dtype: str) -> None:
    """Write the adapter of a run of FourierFT, with its head, to one file.

    Args and errors as of `export_model`; `dtype` is that of the coefficients.
    """
    import torch

    from fourierft import export_compact

    if to.suffix != COMPACT:
        raise UserError(f"{to}: --compact writes one file, whose name ends in {COMPACT}")
    _refuse_existing(to)
    run = trained_run.open_run(folder, changes)
    if not isinstance(run.config.method, FourierFT):
        raise UserError(f"method={run.config.method.name}: --compact is for runs of FourierFT")
    restored = _restore_apart(run, trained_run.build_base(run))
    restored.peft_config["default"].base_model_name_or_path = _get_base_name(run)
    draft = to.with_name(f".{to.name}.tmp")
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        export_compact(restored, draft, dtype=getattr(torch, dtype))
    except ValueError as error:
        draft.unlink(missing_ok=True)
        raise UserError(str(error)) from error
    set_default_mode(draft)
    draft.rename(to)


def export_adapter(folder: Path, to: Path, changes: list[str], repo: str | None = None) -> None:
    """Write the adapter of a run with its card and its record, without paths of this machine.

    Args and errors as of `export_model`; the base model is not needed. The card speaks of `repo`,
    a name on the hub, if it is given.
    """
    _refuse_existing(to)
    run = trained_run.open_run(folder, changes, locate=False)
    kept_adapter.check(run.adapter, run.record)

    def write(draft: Path) -> None:
        names = [name for name in kept_adapter.compute_hashes(run.adapter)]
        for name in names:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.adapter / name, draft / name)
        _name_base(draft, run)
        hashes = kept_adapter.compute_hashes(draft)
        write_record(draft, dataclasses.replace(_strip(run.record), adapter=hashes))
        card = adapter_card.make_card(run, repo or to.name)
        (draft / kept_adapter.CARD).write_text(card, encoding="utf-8")

    _write_folder(to, write)


def _refuse_existing(to: Path) -> None:
    if to.exists():
        raise UserError(f"{to}: already exists and is not overwritten")


def _write_folder(to: Path, write: Callable[[Path], Any]) -> None:
    """Fill a folder, which appears once it is whole."""
    draft = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    set_default_mode(draft)
    draft.rename(to)


def _name_base(draft: Path, run: TrainedRun) -> None:
    """Write the hub's name of the base model into PEFT's configuration, in place of a path."""
    path = draft / "adapter_config.json"
    if not path.is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    name = _get_base_name(run)
    if settings.get("base_model_name_or_path") != name:
        settings["base_model_name_or_path"] = name
        path.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _get_base_name(run: TrainedRun) -> str:
    return adapter_card.get_hub_name(run) or run.config.model.name


def _strip(record: Record) -> Record:
    """Return a record without what is of this machine alone."""
    config = {
        key: dict(one) if isinstance(one, dict) else one for key, one in record.config.items()
    }
    for part, names in PLACES.items():
        config[part] |= {name: None for name in names if name in config[part]}
    config["output"] = "outputs"
    environment = {key: record.environment[key] for key in SHARED if key in record.environment}
    environment["inputs"] = {
        name: {key: value for key, value in one.items() if key != "place"}
        for name, one in (environment.get("inputs") or {}).items()
    }
    return dataclasses.replace(record, config=config, environment=environment)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; return the exit status, 1 for errors that the user can fix."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser("python -m experiments.export", None, summary, details)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("out", type=Path, help="folder or file to write, which must not exist")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--adapter", action="store_true", help="write the adapter alone, with a card")
    form.add_argument("--lora", action="store_true", help="write the adapter alone, as LoRA")
    form.add_argument(
        "--compact",
        choices=["float32", "float16"],
        help="write the adapter of FourierFT alone, as one file with coefficients of this type",
    )
    parser.add_argument("--rank", type=int, help="with --lora: rank to truncate the updates to")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload OUT to the hub")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("changes", nargs="*", metavar="key=value", help=", ".join(ALLOWED))
    asked = parser.parse_intermixed_args(arguments)
    try:
        if asked.rank is not None and not asked.lora:
            raise UserError(f"--rank {asked.rank}: belongs to --lora")
        if asked.push_to_hub and asked.compact:
            raise UserError("--push-to-hub: uploads a folder, --compact writes a file")
        if asked.push_to_hub:
            hub_upload.check_repository(asked.push_to_hub)
        if asked.compact:
            export_compact_file(asked.run, asked.out, asked.changes, asked.compact)
        elif asked.adapter:
            export_adapter(asked.run, asked.out, asked.changes, asked.push_to_hub)
        else:
            export_model(asked.run, asked.out, asked.changes, asked.lora, asked.rank)
        print(f"written: {asked.out}")
        if asked.push_to_hub:
            print(
                f"uploaded: {hub_upload.push_to_hub(asked.out, asked.push_to_hub, asked.private)}"
            )
    except UserError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    console.run_command(COMMAND, main)
