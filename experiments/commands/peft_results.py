"""Records in the format of PEFT's method_comparison: one JSON file per run, for its tools.

The format is that of `method_comparison/MetaMathQA/results` in huggingface/peft, so that its
`processing.load_df` reads it. The task's primary metric stands for `test accuracy`, the peak for
all three memory values; tokens are not counted and given as 0. Other missing values are null.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from experiments.commands import verify
from experiments.errors import RecordError
from experiments.files import write_atomically
from experiments.results import stored
from experiments.results.history import read_history
from experiments.results.record import Record, read_record
from experiments.results.stored import make_printable

ADAPTER = "adapter_config.json"
OPTIMIZER = "AdamW"


def export_records(outputs: Path, folder: Path) -> int:
    """Write every trained run below `outputs`; unreadable records are listed.

    Returns:
        0 if all were written, 1 otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = unreadable = 0
    for run_dir in verify.find_run_dirs(outputs):
        name = make_printable(run_dir.relative_to(outputs).as_posix())
        try:
            record = read_record(run_dir)
            if record.metrics is None:
                continue
            text = json.dumps(convert_record(record, run_dir, name), indent=2) + "\n"
            write_atomically(folder / f"{name.replace('/', '--')}.json", text)
        except (RecordError, OSError) as error:
            print(make_printable(error), file=sys.stderr)
            unreadable += 1
            continue
        written += 1
    print(f"{written} results in {folder}")
    return 1 if unreadable else 0


def convert_record(record: Record, run_dir: Path, name: str) -> dict[str, Any]:
    """Convert a record to an entry of PEFT's comparison.

    Args:
        record: record of a trained run.
        run_dir: run folder.
        name: name of the experiment.

    Raises:
        RecordError: history or adapter are damaged, or the record lacks training settings.
    """
    model, task, train = (record.config.get(part) or {} for part in ("model", "task", "train"))
    absent = [key for key in ("precision", "batch_size", "learning_rate") if key not in train]
    if absent:
        raise RecordError(f"{run_dir}: no train.{', train.'.join(absent)} in its configuration")
    time, memory, said = record.time, record.memory, record.environment
    peak = memory.get("peak_gpu") or memory.get("peak_rss") or 0
    spent = [value for key, value in time.items() if key.endswith("_s") and value is not None]
    return {
        "run_info": {
            "created_at": time.get("started"),
            "total_time": sum(spent),
            "experiment_name": name,
            "peft_branch": None,
            "train_config": {
                "model_id": model.get("repo") or record.run["model"],
                "dtype": {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(
                    train["precision"]
                ),
                "max_seq_length": task.get("max_length"),
                "batch_size": train["batch_size"],
                "batch_size_eval": train.get("eval_batch_size"),
                "max_steps": train.get("max_steps"),
                "seed": record.config.get("seed"),
                "grad_norm_clip": train.get("max_grad_norm"),
                "optimizer_type": OPTIMIZER,
                "optimizer_kwargs": {
                    "lr": train["learning_rate"],
                    "weight_decay": train.get("weight_decay"),
                },
                "lr_scheduler": train.get("schedule"),
            },
            "peft_config": _adapter(run_dir),
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": peak,
            "accelerator_memory_max": peak,
            "accelerator_memory_reserved_99th": peak,
            "train_time": time.get("train_s") or 0.0,
            "file_size": record.parameters["stored_bytes"],
            "num_trainable_params": record.parameters["adapter"]
            + (record.parameters.get("head") or 0),
            "num_total_params": record.parameters.get("base"),
            "status": "success",
            "metrics": _metrics(record, run_dir),
        },
        "meta_info": {
            "model_info": {"sha": said.get("weights"), "created_at": None},
            "dataset_info": {record.run["task"]: {"sha": said.get("data"), "created_at": None}},
            "package_info": _packages(said),
            "system_info": {
                "system": said.get("platform"),
                "processor": said.get("processor"),
                "gpu": said.get("gpu"),
            },
            "pytorch_info": None,
        },
    }


def _adapter(run_dir: Path) -> dict[str, Any] | None:
    """Read PEFT's configuration of the stored adapter; None for methods outside PEFT."""
    found = [
        *sorted(run_dir.glob(f"adapter/{ADAPTER}")),
        *sorted(run_dir.glob(f"adapter/*/{ADAPTER}")),
    ]
    return stored.read_json(found[0]) if found else None


def _metrics(record: Record, run_dir: Path) -> list[dict[str, Any]]:
    """Return one entry per evaluation, and a last one with the score shown in tables."""
    primary = (record.metrics or {}).get("primary") or {}
    key = f"{primary.get('split')}/{primary.get('name')}"
    entries, loss = [], None
    for line in read_history(run_dir):
        loss = line.get("train/loss", loss)
        if isinstance(line.get(key), (int, float)):
            entries.append(
                {
                    "step": line["step"],
                    "valid accuracy": line[key],
                    "train loss": loss,
                    "elapsed time": line.get("elapsed_s"),
                }
            )
    rows = (record.environment.get("rows") or {}).get("train")
    steps = entries[-1]["step"] if entries else None
    samples = (steps or 0) * (record.config["train"]["batch_size"] or 0)
    last = {
        "step": steps,
        "test accuracy": primary.get("value"),
        "train loss": loss,
        "train samples": samples,
        "train total tokens": 0,
        "metric": primary.get("name"),
        "train rows": rows,
    }
    return [*entries, last]


def _packages(said: dict[str, Any]) -> dict[str, Any]:
    versions = said.get("versions") or {}
    names = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
    found: dict[str, Any] = {}
    for name in names:
        found[f"{name}-version"] = versions.get(name)
        found[f"{name}-commit-hash"] = None
    return found
