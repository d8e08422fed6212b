"""The engine against its floor and its peers: `python -m benchmarks.engine`.

Ratios, not absolute times: every contestant of a row runs in turns with the others. One thread
unless said otherwise. Writes JSON and prints tables; ten minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model

import fourierft
from benchmarks.cases import TimedModel, changing, continuation, layer_step
from benchmarks.operations import CONTESTANTS, DTYPES, count_per_layer
from benchmarks.timing import peak_bytes, race, saved_bytes
from experiments.results import environment
from fourierft import Engine

LAYERS = [(d, tokens, 1000) for d in (768, 1024, 1280) for tokens in (32, 512, 4096)]
LAYERS += [(4096, 32, 1000), (4096, 512, 1000)]
LAYERS += [(768, tokens, n) for n in (200, 3000, 10_000) for tokens in (32, 512, 4096)]
QUANTISED = [(d, tokens) for d in (768, 1024, 2048) for tokens in (32, 256, 2048)]
GENERATED = [1, 8]
PLANES = [768, 1024, 1280, 4096]
BATCHES = {"8x64": (8, 64), "1x32": (1, 32)}
PEERS = {"stock": "stock", "ours": "cache"}
TOO_SLOW = 1.0  # seconds of a frozen layer: a row would take minutes
BenchmarkRow = dict[str, Any]


def layers(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Time one adapted layer over the frozen one, forward and backward."""
    for dtype in (torch.float32, torch.bfloat16):
        slowest = 0.0  # seconds per number and token, of a row that was too slow
        for d, tokens, n in LAYERS:
            case = {"dtype": str(dtype).removeprefix("torch."), "d": d, "tokens": tokens, "n": n}
            if n != 1000 and dtype != torch.float32:
                continue
            make = (d, d), tokens, n, dtype, options.device
            work = d * d * tokens
            if (expected := slowest * work) > 4 * TOO_SLOW:
                yield {**case, "skipped": f"the frozen layer alone would take {expected:.0f} s"}
                continue
            frozen, _ = layer_step("frozen", *make)
            began = time.perf_counter()
            frozen()
            alone = time.perf_counter() - began
            if alone > TOO_SLOW:
                slowest = alone / work
                yield {**case, "skipped": f"the frozen layer alone takes {alone:.1f} s here"}
                continue
            ours, layer = layer_step("cache", *make)
            contestants = {"frozen": frozen, "ours": ours, "rebuilt": changing(ours, layer)}
            if n == 1000:
                for method in ("recompute", "dense", "sampled", "lora", "stock"):
                    if alone < 0.15 or method in ("lora", "stock"):
                        contestants[method] = layer_step(method, *make)[0]
            yield case | race(contestants, options.seconds)


def quantised(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Time one adapted layer in NF4 over the frozen one, forward and backward."""
    for d, tokens in QUANTISED:
        make = (d, d), tokens, 1000, torch.float32, options.device, True
        methods = ("frozen", "auto", "cache", "lora")
        engines: dict[str, Any] = {"auto": Engine()}
        cases = {method: layer_step(engines.get(method, method), *make) for method in methods}
        contestants = {method: step for method, (step, _) in cases.items()}
        contestants["separate product"], apart = layer_step(Engine(), *make)
        apart.base_layer.register_forward_hook(lambda *call: None)  # W0 is then left alone
        yield {"d": d, "tokens": tokens} | race(contestants, options.seconds)


def generation(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Time greedy generation of 32 tokens, keys and values cached."""
    for four_bits in (False, True):
        for rows in GENERATED:
            engines = {"frozen": "frozen", "held": Engine(), "compared": "cache", "lora": "lora"}
            contestants = {
                name: continuation(method, rows, options.device, four_bits, name)
                for name, method in engines.items()
            }
            case = {"weights": "NF4" if four_bits else "float32", "rows": rows}
            yield case | race(contestants, 4 * options.seconds)


def steps(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Time whole optimizer steps and evaluations of a model of RoBERTa-base's shape."""
    methods = ("frozen", "auto", "cache", "recompute", "lora", "stock")
    models = {method: TimedModel(method, torch.float32, options.device) for method in methods}
    large, small = BATCHES.items()
    rows: dict[str, Callable[[TimedModel], Callable]] = {
        f"step {large[0]}": lambda model: model.step(*large[1]),
        f"step {small[0]}, 4 accumulated": lambda model: model.step(*small[1], 4),
        f"evaluation {large[0]}": lambda model: model.evaluation(*large[1]),
        f"evaluation {small[0]}": lambda model: model.evaluation(*small[1]),
    }
    for name, make in rows.items():
        contestants = {method: make(model) for method, model in models.items()}
        yield {"case": name} | race(contestants, 4 * options.seconds)
    yield {"case": f"saved for backward {large[0]}, bytes"} | {
        method: saved_bytes(model.forward(*large[1]), model.addresses())
        for method, model in models.items()
    }
    yield {"case": f"peak of a step {large[0]}, bytes"} | {
        method: peak_bytes(model.step(*large[1]), options.device)
        for method, model in models.items()
    }


def transforms(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """DeltaW of one matrix alone, without autograd."""
    for d in PLANES:
        contestants = {}
        for name, method in PEERS.items():
            _, layer = layer_step(method, (d, d), 1, 1000, torch.float32, options.device)
            contestants[name] = torch.no_grad()(
                lambda layer=layer: layer.get_delta_weight("default")
            )
        yield {"d": d} | race(contestants, options.seconds)


def operations(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Count what a layer starts in a forward and backward pass."""
    for name, method in CONTESTANTS.items():
        counts = {kind: round(count_per_layer(method, dtype), 1) for kind, dtype in DTYPES.items()}
        yield {"operations": name} | counts


def merging(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Time merging the 24 matrices of the model, and unmerging them."""
    merge, unmerge = {}, {}
    for name, method in PEERS.items():
        net = TimedModel(method, torch.float32, options.device).net
        found = [module for module in net.modules() if hasattr(module, "fourierft_spectrum")]
        merge[name] = lambda found=found: [module.merge() for module in found]
        unmerge[name] = lambda found=found: [module.unmerge() for module in found]
    yield {"case": "merge"} | race(merge, options.seconds, after=unmerge)
    for run in merge.values():
        run()
    yield {"case": "unmerge"} | race(unmerge, options.seconds, after=merge)


def files(options: argparse.Namespace) -> Iterator[BenchmarkRow]:
    """Measure bytes on disk of 24 x 1000 coefficients, and milliseconds to write and read them."""
    net = TimedModel("frozen", torch.float32, "cpu").net
    config = fourierft.FourierFTConfig(n_frequency=1000, target_modules=["query", "value"])
    model = get_peft_model(net, config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writers = {
            "peft folder": lambda: model.save_pretrained(folder / "peft"),
            "compact float32": lambda: fourierft.export_compact(model, folder / "c32"),
            "compact float16": lambda: fourierft.export_compact(
                model, folder / "c16", dtype=torch.float16
            ),
        }
        written = race(writers, options.seconds)
        base = model.unload()
        readers = {
            "peft folder": lambda: PeftModel.from_pretrained(base, folder / "peft").unload(),
            "compact float32": lambda: fourierft.import_compact(base, folder / "c32").unload(),
            "compact float16": lambda: fourierft.import_compact(base, folder / "c16").unload(),
        }
        read = race(readers, options.seconds)
        sizes = {
            "peft folder": (folder / "peft" / "adapter_model.safetensors").stat().st_size,
            "compact float32": (folder / "c32").stat().st_size,
            "compact float16": (folder / "c16").stat().st_size,
        }
    for form, size in sizes.items():
        milliseconds = {"write ms": written[form]["ms"], "read ms": read[form]["ms"]}
        yield {"form": form, "bytes": size} | {k: round(v, 2) for k, v in milliseconds.items()}


SECTIONS = {
    f.__name__: f
    for f in (operations, transforms, layers, quantised, generation, steps, merging, files)
}


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Return the machine and the version of the code that were measured."""
    return {
        **environment.describe(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": options.device,
    }


def table(rows: list[BenchmarkRow]) -> str:
    """Format the rows as a Markdown table: ratios, and milliseconds of the first contestant."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        timed = [key for key in row if isinstance(row[key], dict)]
        cells = []
        for key in columns:
            value = row.get(key, "")
            if isinstance(value, dict):
                first = key == timed[0]
                value = f"{value['ms']:.2f} ms" if first else f"{value['ratio']:.2f}"
            cells.append(f"{value:,}" if isinstance(value, int) and value > 9999 else str(value))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the chosen sections."""
    parser = argparse.ArgumentParser(prog="benchmarks.engine", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="NAME", help=f"which of {', '.join(SECTIONS)} (default: all)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, at least 1")
    parser.add_argument("--seconds", type=float, default=3.0, help="about, per row")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/engine.json"))
    options = parser.parse_args()
    if options.threads < 1 or options.seconds < 0:
        sys.exit("benchmarks.engine: --threads and --seconds: allowed from 1 and from 0")
    if unknown := set(options.sections) - SECTIONS.keys():
        sys.exit(f"benchmarks.engine: {', '.join(unknown)}: allowed {', '.join(SECTIONS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks.engine: --device=cuda: no CUDA device here, allowed cpu")
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"machine": machine(options)}
    if options.out.exists():  # sections measured before, on this machine and code
        known = json.loads(options.out.read_text())
        result = known if known["machine"] == result["machine"] else result
    print(json.dumps(result["machine"]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        print(f"\n## {name}: {SECTIONS[name].__doc__}", flush=True)
        print("Times are medians; plain numbers are ratios to the time of their row.\n", flush=True)
        rows = result[name] = []
        for row in SECTIONS[name](options):
            rows.append(row)
            gc.collect()
            print("  " + ", ".join(_short(row)), file=sys.stderr, flush=True)
        print(table(rows), flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{options.out}")


def _short(row: BenchmarkRow) -> Iterator[str]:
    for key, value in row.items():
        yield f"{key} {value['ratio']:.3f}" if isinstance(value, dict) else f"{key} {value}"


if __name__ == "__main__":
    main()
