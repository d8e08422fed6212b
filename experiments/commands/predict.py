"""Predict with a finished run: `python -m experiments.predict RUN --input FILE`.

RUN is a run folder, or an adapter exported from one. The rows of FILE (.csv, .tsv, .jsonl or
.parquet; `-` is standard input) come back with a column `prediction`: the class by its name, the
number or the text. Classifiers add a column `probability NAME` for each class. FILE needs the text
columns of the run's task; a run on images reads a folder of images, or a column `file`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from experiments import console
from experiments.commands import trained_run
from experiments.commands.trained_run import ALLOWED, TrainedRun
from experiments.device import select_device
from experiments.errors import DataError, UserError
from experiments.tasks import image_scan, table_files
from experiments.tasks.generation import generate_continuations
from experiments.tasks.language import Language

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

CHANGEABLE = (*ALLOWED, "train.device")
STDIN = "-"
Rows = list[dict[str, Any]]


def predict(run: TrainedRun, rows: Rows, batch_size: int | None = None) -> Rows:
    """Return rows with the predictions of a run's network.

    Args:
        run: the run.
        rows: cells by column.
        batch_size: rows at once; None: as many as were scored at once in training, so that equal
            rows get equal numbers.

    Raises:
        UserError: the rows lack what the network reads, or weights or adapter are not the run's.
    """
    from experiments.training.backends import check_device, set_matmul

    config = run.config
    taken = [name for name in rows[0] if name.partition(" ")[0] in ("prediction", "probability")]
    if taken:
        raise DataError(f"the input has columns of predictions: {', '.join(taken)}")
    check_device(config.training)
    set_matmul(config.training)
    processor = config.model.processor(run.weights, device=config.training.device)
    prepared = config.task.prepare_inputs(rows, processor)
    net = config.method.restore(trained_run.build_base(run), run.adapter, merged=False)
    if config.model.quantization is None:
        net = net.to(select_device(config.training.device))
    if isinstance(config.task, Language):
        texts = _continue(net, processor, config.task, prepared, batch_size)
        return [row | {"prediction": text} for row, text in zip(rows, texts, strict=True)]
    logits = compute_logits(
        net,
        prepared,
        config.task.get_collator(processor),
        batch_size or config.training.eval_batch_size,
        config.training.precision.value,
    )
    if config.task.head.kind == "regression":
        return [
            row | {"prediction": float(one)} for row, one in zip(rows, logits[:, 0], strict=True)
        ]
    head = config.task.head
    names = head.names or tuple(map(str, range(head.labels)))
    return [row | dict(_describe(one, names)) for row, one in zip(rows, logits, strict=True)]


def compute_logits(
    net: Any, rows: Sequence[dict], collate: Any, batch_size: int, precision: str
) -> np.ndarray:
    """Return the outputs of a network (rows, labels), float32."""
    import torch

    from fourierft.holding import hold_weights

    device = next(net.parameters()).device
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    found = []
    net.eval()
    with (
        torch.inference_mode(),
        hold_weights(net, quantised=False),
        torch.autocast(device.type, dtype, enabled=dtype is not None),
    ):
        for start in range(0, len(rows), batch_size):
            batch = collate(list(rows[start : start + batch_size]))
            logits = net(**{key: value.to(device) for key, value in batch.items()}).logits
            found.append(logits.float().cpu())
    return torch.cat(found).numpy()


def _describe(logits: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a classifier's row."""
    import numpy as np

    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    yield "prediction", names[int(logits.argmax())]
    yield from (
        (f"probability {name}", round(float(p), 6)) for name, p in zip(names, shares, strict=True)
    )


def _continue(
    net: Any, processor: Any, task: Language, prepared: Sequence[dict], batch_size: int | None
) -> list[str]:
    """Return the text that a language model writes to each prompt."""
    texts = [""] * len(prepared)
    for batch in generate_continuations(
        net,
        processor,
        [row["input_ids"] for row in prepared],
        batch_size=batch_size or task.generation_batch_size,
        max_new_tokens=task.get_answer_room(processor),
        **task.get_decoding(processor),
    ):
        for position, text in batch:
            texts[position] = task.finish_text(text)
    return texts


def read_rows(given: str) -> tuple[Rows, str]:
    """Read the rows of a file, or of standard input.

    Returns:
        The rows, and the ending that names their format.
    """
    path = Path(given)
    if path.is_dir():
        images = image_scan.scan(path).images
        if not images:
            raise DataError(f"{path}: no images")
        return [{"file": str(image)} for image in images], ".csv"
    if given != STDIN:
        (files,) = table_files.find_splits(given, key="--input").values()
        rows, ending = _list_rows(table_files.read_tables(files), given), path.suffix
    else:
        content = sys.stdin.buffer.read()
        ending = ".jsonl" if content.lstrip()[:1] in (b"{", b"[") else ".csv"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"standard input{ending}"
            path.write_bytes(content)
            rows = _list_rows(table_files.read_tables([path]), "standard input")
    if not rows:
        raise DataError(f"{given}: no rows")
    return rows, ending


def _list_rows(table: pyarrow.Table, given: str) -> Rows:
    names = table.column_names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{given}: several columns named {', '.join(map(repr, twice))}")
    return table.to_pylist()


def write_rows(rows: Rows, to: Path | None, ending: str) -> None:
    """Write rows to a file, in the format that its name ends with, or to standard output.

    Raises:
        UserError: see `check_output`.
    """
    if to is None:
        _write_text(rows, sys.stdout, ".jsonl" if ending == ".parquet" else ending)
        return
    check_output(to)
    if to.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), to)
        return
    with to.open("w", encoding="utf-8", newline="") as file:
        _write_text(rows, file, to.suffix)


def check_output(to: Path) -> None:
    """Raise a UserError if a file exists, its format is unknown, or its folder does not exist."""
    if to.exists():
        raise UserError(f"{to}: already exists and is not overwritten")
    if to.suffix not in table_files.ENDINGS:
        raise UserError(f"--output {to}: must end with {', '.join(table_files.ENDINGS)}")
    if not to.absolute().parent.is_dir():
        raise UserError(f"--output {to}: no such folder as {to.parent}")


def _write_text(rows: Rows, file: TextIO, ending: str) -> None:
    if ending in table_files.SEPARATORS:
        separator = table_files.SEPARATORS[ending]
        table = csv.DictWriter(file, list(rows[0]), delimiter=separator, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    elif ending == ".json":
        json.dump(rows, file, ensure_ascii=False, default=str, indent=1)
    else:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; return the exit status."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser("python -m experiments.predict", None, summary, details)
    parser.add_argument("run", type=Path, help="folder of a finished run, or an exported adapter")
    parser.add_argument("--input", required=True, metavar="FILE", help="rows; - for standard input")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--batch-size", type=int, metavar="N", help="rows at once")
    parser.add_argument("changes", nargs="*", metavar="key=value", help=", ".join(CHANGEABLE))
    asked = parser.parse_intermixed_args(arguments)
    if asked.batch_size is not None and asked.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if asked.output is not None:  # before the work
        check_output(asked.output)
    rows, ending = read_rows(asked.input)
    run = trained_run.open_run(asked.run, asked.changes, CHANGEABLE)
    write_rows(predict(run, rows, asked.batch_size), asked.output, ending)
    return 0


if __name__ == "__main__":
    console.run_command("experiments.predict", main)
