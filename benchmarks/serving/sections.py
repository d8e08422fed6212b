"""What is measured: layers, models, memory and the time to load and replace adapters."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from peft.utils.hotswap import hotswap_adapter
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, RobertaConfig, RobertaModel

from benchmarks.serving.contestants import (
    Step,
    TimedLayer,
    add_adapters,
    fill_bank,
    fourierft_config,
    lora_config,
)
from benchmarks.timing import race
from fourierft import AdapterBank, export_compact

Row = dict[str, Any]


class Sizes(NamedTuple):
    """Sizes of all cases."""

    seconds: float
    """About how long a layer or model is timed."""
    sides: dict[int, str]
    """Sides of square weights and the models that have them."""
    rows: int
    """Rows of a batch in decoding, one token each."""
    adapters: list[int]
    """Different adapters in a batch of that many rows."""
    prompts: tuple[int, int]
    """Rows and tokens of prefill."""
    n: int
    """Coefficients per matrix."""
    models: dict[str, tuple[dict[str, int], int, int]]
    """Per model its sizes, rows and tokens per row."""
    resident: list[int]
    """Adapters in memory."""
    encoder: dict[str, int]
    """Sizes of the encoder that is loaded and swapped, RoBERTa-base's."""


MINILM = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
ROBERTA = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
SMOLLM2 |= {"num_attention_heads": 9, "num_key_value_heads": 3}
LLAMA = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 32}
FULL = Sizes(
    seconds=5.0,
    sides={384: "MiniLM", 576: "SmolLM2", 768: "RoBERTa-base", 2048: "LLaMA 1B"},
    rows=128,
    adapters=[1, 2, 4, 8, 16, 32, 64, 128],
    prompts=(16, 64),
    n=1000,
    models={
        "MiniLM": (MINILM, 32, 16),
        "RoBERTa-base": (ROBERTA, 32, 16),
        "SmolLM2, a token": (SMOLLM2, 32, 1),
        "LLaMA 1B, 2 layers, a token": (LLAMA, 32, 1),
    },
    resident=[1, 10, 100, 1000, 10_000],
    encoder=ROBERTA,
)
_TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
DRY = Sizes(
    seconds=0.0,
    sides={32: "tiny"},
    rows=8,
    adapters=[1, 8],
    prompts=(4, 5),
    n=20,
    models={"tiny encoder": (_TINY | {"num_attention_heads": 4}, 4, 3)},
    resident=[1, 130],
    encoder=_TINY | {"num_attention_heads": 4},
)


def decode(sizes: Sizes) -> Iterator[Row]:
    """Time the adapters of one layer with a token in every row: milliseconds, the base apart."""
    for side, name in sizes.sides.items():
        layer = TimedLayer(side, sizes.rows, 1, max(sizes.adapters), sizes.n)
        yield from _race_layer(layer, sizes.adapters, sizes.seconds, {"d": side, "of": name})


def prefill(sizes: Sizes) -> Iterator[Row]:
    """Time the adapters of one layer with a prompt in every row: milliseconds, the base apart."""
    rows, tokens = sizes.prompts
    adapters = [count for count in sizes.adapters if count <= rows]
    for side, name in sizes.sides.items():
        layer = TimedLayer(side, rows, tokens, max(adapters), sizes.n)
        yield from _race_layer(layer, adapters, sizes.seconds, {"d": side, "of": name})


@torch.no_grad()
def _race_layer(layer: TimedLayer, adapters: list[int], seconds: float, case: Row) -> Iterator[Row]:
    """Race all forms at all numbers of adapters at once, so that they can be compared."""
    contestants: dict[str, Step] = {}
    for count in adapters:
        forms = {
            "bank": layer.bank_rows(count),
            "bank, once": layer.bank_once(count),
            "adapter_names": layer.by_names(layer.ours, count),
            "LoRA, adapter_names": layer.by_names(layer.lora, count),
            "LoRA, gathered": layer.gathered(count),
            "merged": layer.merged(count),
        }
        contestants |= {f"{form} {count}": step for form, step in forms.items() if step}
    contestants |= {"ready": layer.ready, "base": layer.base}
    found = race(contestants, seconds, clock=time.process_time)
    ms = {name: result["ms"] for name, result in found.items()}
    for count in adapters:
        row = case | {"rows": layer.rows, "tokens": layer.x.shape[1], "adapters": count}
        row["base"] = ms["base"]
        for form in forms:
            if f"{form} {count}" in ms:
                # LoRA is added to a product made beforehand; the others may replace it.
                row[form] = ms[f"{form} {count}"] - ms["ready" if "LoRA" in form else "base"]
        for form in ("bank", "bank, once"):
            row[f"{form} / LoRA"] = row[form] / row["LoRA, adapter_names"]
        yield row


def _make_model(sizes: dict[str, int]) -> tuple[nn.Module, list[str]]:
    """Return a model with random weights and the modules of it that are adapted."""
    torch.manual_seed(0)
    if "num_key_value_heads" in sizes:
        return LlamaModel(LlamaConfig(**sizes, vocab_size=1000)), ["q_proj", "v_proj"]
    if sizes["hidden_size"] == 768:
        return RobertaModel(RobertaConfig(**sizes, vocab_size=1000)), ["query", "value"]
    return BertModel(BertConfig(**sizes, vocab_size=1000)), ["query", "value"]


@torch.no_grad()
def models(sizes: Sizes) -> Iterator[Row]:
    """Time whole forward passes over the base model's, names given anew in every pass."""
    for name, (shape, rows, tokens) in sizes.models.items():
        base, targets = _make_model(shape)
        base.eval()
        lora = add_adapters(_make_model(shape)[0], lora_config(targets), rows)
        ours = add_adapters(_make_model(shape)[0], fourierft_config(sizes.n, targets), rows)
        ids = torch.randint(5, 1000, (rows, tokens))
        bank = AdapterBank(banked := _make_model(shape)[0].eval().requires_grad_(False))
        fill_bank(bank, ours)
        contestants: dict[str, Step] = {"base": lambda net=base, ids=ids: net(ids)}
        counts = sorted({1, min(4, rows), rows})
        for count in counts:
            names = [f"a{row % count}" for row in range(rows)]

            def run_bank(names: list[str] = names, bank: AdapterBank = bank) -> None:
                with bank.rows(names):
                    bank.net(ids)  # noqa: B023 - run in this turn of the loop

            contestants[f"bank {count}"] = run_bank
            contestants[f"LoRA {count}"] = lambda names=names, net=lora, ids=ids: net(
                ids, adapter_names=names
            )
        del ours, banked
        found = race(contestants, sizes.seconds, clock=time.process_time)
        for count in counts:
            mine, theirs = found[f"bank {count}"]["ratio"], found[f"LoRA {count}"]["ratio"]
            row = {"model": name, "rows": rows, "tokens": tokens, "adapters": count}
            row |= {"base": found["base"]["ms"], "bank / base": mine, "LoRA / base": theirs}
            yield row | {"bank / LoRA": mine / theirs}


def resident(sizes: Sizes) -> Iterator[Row]:
    """Measure the memory of adapters in a bank, and the time to load one."""
    base, targets = _make_model(sizes.encoder)
    config = fourierft_config(sizes.n, targets)
    model = add_adapters(base, config, 1)
    lora = add_adapters(_make_model(sizes.encoder)[0], lora_config(targets), 1)
    of_lora = sum(p.nbytes for name, p in lora.named_parameters() if "lora" in name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.safetensors"
        export_compact(model, path, adapter_name="a0")
        bank = AdapterBank(_make_model(sizes.encoder)[0])
        process, count = psutil.Process(), 0
        before = process.memory_info().rss
        for wanted in sizes.resident:
            began, start = time.process_time(), count
            for count in range(start + 1, wanted + 1):
                bank.add(f"a{count}", path)
            spent = (time.process_time() - began) / (wanted - start)
            coefficients = 4 * bank.describe("a1").parameters * wanted
            grown = process.memory_info().rss - before
            row = {"adapters": wanted, "coefficients MB": coefficients / 1e6}
            row |= {"bank MB": bank.nbytes / 1e6, "process MB": grown / 1e6}
            row |= {"process / coefficients": grown / coefficients, "load ms": spent * 1e3}
            yield row | {"LoRA r=8 MB": of_lora * wanted / 1e6}


def latency(sizes: Sizes) -> Iterator[Row]:
    """Time loading, replacing and choosing one adapter: milliseconds."""
    base, targets = _make_model(sizes.encoder)
    nets = [base, *(_make_model(sizes.encoder)[0] for _ in range(2))]
    ours = add_adapters(nets[0], fourierft_config(sizes.n, targets), 2)
    lora = add_adapters(nets[1], lora_config(targets), 2)
    bank = AdapterBank(nets[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours.save_pretrained(folder / "ours")
        lora.save_pretrained(folder / "lora")
        export_compact(ours, folder / "compact", adapter_name="a0")
        bank.add_folder(folder / "ours")
        bank.add("other", folder / "compact")
        turn = iter(range(10**9))

        def load_lora() -> None:
            lora.load_adapter(folder / "lora/a0", "new")

        def load_ours() -> None:
            bank.add("new", folder / "ours/a0")

        def load_compact() -> None:
            bank.add("new", folder / "compact")

        def choose() -> None:
            with bank.rows([("a0", "a1")[next(turn) % 2]]):
                pass

        contestants: dict[str, Step] = {
            "load, PEFT folder": load_ours,
            "load, compact file": load_compact,
            "load, LoRA in PEFT": load_lora,
            "replace, PEFT folder": lambda: bank.replace("a1", folder / "ours/a0"),
            "replace, compact file": lambda: bank.replace("other", folder / "compact"),
            "replace, LoRA in PEFT (hotswap_adapter)": lambda: hotswap_adapter(
                lora, str(folder / "lora/a1"), "a0"
            ),
            "choose another in memory": choose,
            "choose another in memory, LoRA in PEFT": lambda: lora.set_adapter(
                ("a0", "a1")[next(turn) % 2]
            ),
        }
        undo = {
            "load, PEFT folder": lambda: bank.remove("new"),
            "load, compact file": lambda: bank.remove("new"),
            "load, LoRA in PEFT": lambda: lora.delete_adapter("new"),
        }
        for what, found in race(contestants, sizes.seconds, undo, time.process_time).items():
            yield {"operation": what, "ms": found["ms"]}


# Memory first: what a process has freed it takes again without growing.
SECTIONS = {f.__name__: f for f in (resident, latency, decode, prefill, models)}
