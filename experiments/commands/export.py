"""Write a finished run as a plain model: `python -m experiments.commands.export RUN OUT`.

The adapter is merged into the weights, and GPT-2's q, k and v are one matrix again, so that
`from_pretrained(OUT)` of transformers (or diffusers) works without this project. If the base
model's weights have moved, add `model.path=FOLDER` after OUT.

With --lora the adapter stays apart, as LoRA that PEFT loads without this project: exact for runs of
FourierFT with `method.entry_rows`, refused for others.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import console, hub
from experiments.config.restore import restore_config
from experiments.errors import RecordError, UserError
from experiments.files import set_default_mode
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


def export_model(run: Path, to: Path, changes: list[str], lora: bool = False) -> None:
    """Build the base model of a run, load the kept epoch's adapter into it, and save it.

    Args:
        run: a run folder with metrics.json.
        to: folder that does not exist yet.
        changes: `key=value` for some of ALLOWED.
        lora: write the adapter alone, as LoRA.

    Raises:
        UserError: nothing to export, weights that are missing or not the run's, or `to` exists.
    """
    wrong = [change for change in changes if change.partition("=")[0] not in ALLOWED]
    if wrong:
        allowed = ", ".join(ALLOWED)
        raise UserError("invalid options", [f"{one} (allowed: {allowed})" for one in wrong])
    if to.exists():
        raise UserError(f"{to}: already exists and is not overwritten")
    if not (run / RECORD).is_file():
        raise RecordError(f"{run}: no {RECORD}, not a finished run")
    record = read_record(run)
    recorded = restore_config(record.config, changes)
    if not (run / "adapter").is_dir():
        raise RecordError(f"{run}: no adapter (mode={recorded.mode.value})")
    if lora and getattr(recorded.method, "entry_rows", None) is None:
        raise UserError(
            f"{run}: not exactly a LoRA adapter (method={recorded.method.name}, "
            "method.entry_rows=null); export it merged, without --lora"
        )
    if recorded.offline:
        hub.go_offline()
    weights = recorded.model.locate(recorded.offline)
    _check_counts(recorded, record)

    from experiments.models.gpt2_attention import fuse_attention
    from experiments.run.build import build_base

    try:
        net = build_base(recorded, weights)  # downloads, if need be
    except (RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise RecordError(
            f"{run}: its base model cannot be built ({make_printable(error)[:300]})"
        ) from error
    if recorded.model.quantization is not None:
        net = net.dequantize()  # exactly the values that the adapter was trained on
    inputs.check_model(run, recorded, record)
    for path in (run / "adapter").rglob("*"):
        if not path.is_dir():
            stored.check_file(path, ADAPTER)
    kept_adapter.check(run, record)
    draft = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    if lora:
        _write_lora(recorded, net, run / "adapter", draft)
        draft.rename(to)
        return
    net = fuse_attention(recorded.method.restore(net, run / "adapter"))
    plain = recorded.model.plain(net, weights)
    if plain is None:
        raise UserError(
            f"model={recorded.model.name}: not a model of transformers or diffusers, "
            "nothing to export"
        )
    processor = recorded.model.processor(weights)
    draft.mkdir(parents=True)
    plain.save_pretrained(draft)
    if hasattr(processor, "save_pretrained"):  # of diffusion, it is in the pipeline
        processor.save_pretrained(draft)
    set_default_mode(draft)
    draft.rename(to)


def _write_lora(recorded: Config, net: nn.Module, adapter: Path, to: Path) -> None:
    """Write the adapter as LoRA for the model as transformers builds it.

    Raises:
        UserError: the run's network has other modules than that model.
    """
    from experiments.models.gpt2_attention import SplitAttention
    from fourierft import export_lora

    split = any(isinstance(part, SplitAttention) for part in net.modules())
    if split or not hasattr(net, "save_pretrained"):
        raise UserError(
            f"model={recorded.model.name}: its adapted modules are not those of transformers' "
            "model; export it merged, without --lora"
        )
    export_lora(recorded.method.restore(net, adapter, merged=False), to)
    set_default_mode(to)


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


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; return the exit status, 1 for errors that the user can fix."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        "python -m experiments.commands.export", None, summary, details
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("out", type=Path, help="folder to write, which must not exist")
    parser.add_argument("--lora", action="store_true", help="write the adapter alone, as LoRA")
    parser.add_argument("changes", nargs="*", metavar="key=value", help=", ".join(ALLOWED))
    asked = parser.parse_intermixed_args(arguments)
    try:
        export_model(asked.run, asked.out, asked.changes, asked.lora)
    except UserError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(f"written: {asked.out}")
    return 0


if __name__ == "__main__":
    console.run_command("experiments.commands.export", main)
