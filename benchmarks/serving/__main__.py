"""Batches in which every row has an adapter of its own: `python -m benchmarks.serving [--dry]`.

Every form runs in turns with the others, on one thread, whose own time is taken: a busy machine
counts little. Writes JSON, prints tables, draws a picture; three minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import machine, table
from benchmarks.serving import picture
from benchmarks.serving.sections import DRY, FULL, SECTIONS, Row

GOALS = {
    "bank / LoRA at the most adapters": 0.3,
    "bank / LoRA at any number": 1.3,
    "bank, once: at the most adapters / at one": 1.15,
    "process / coefficients": 1.1,
    "replace ms": 1.0,
}


def check_goals(result: dict[str, list[Row]]) -> list[Row]:
    """Return the goals and what was measured of them, the worst case of each."""
    found: dict[str, float] = {}
    if rows := result.get("decode"):
        most = max(row["adapters"] for row in rows)
        last = [row for row in rows if row["adapters"] == most]
        found["bank / LoRA at the most adapters"] = max(row["bank / LoRA"] for row in last)
        found["bank / LoRA at any number"] = max(row["bank / LoRA"] for row in rows)
        one = {row["d"]: row["bank, once"] for row in rows if row["adapters"] == 1}
        found["bank, once: at the most adapters / at one"] = max(
            row["bank, once"] / one[row["d"]] for row in last
        )
    if rows := result.get("resident"):
        found["process / coefficients"] = rows[-1]["process / coefficients"]
    for row in result.get("latency", []):
        if row["operation"] == "replace, compact file":
            found["replace ms"] = row["ms"]
    return [
        {"goal": name, "at most": GOALS[name], "found": value, "reached": value <= GOALS[name]}
        for name, value in found.items()
    ]


def rounded(rows: list[Row]) -> list[Row]:
    """Return rows for a table: three digits are measured."""
    return [
        {key: float(f"{v:.3g}") if isinstance(v, float) else v for key, v in row.items()}
        for row in rows
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen sections."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="NAME", help=f"which of {', '.join(SECTIONS)} (default: all)"
    )
    parser.add_argument("--dry", action="store_true", help="tiny shapes, seconds")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/serving.json"))
    parser.add_argument("--picture", type=Path, help="where to draw (default: beside --out)")
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - SECTIONS.keys():
        sys.exit(f"benchmarks.serving: {', '.join(unknown)}: allowed {', '.join(SECTIONS)}")
    torch.set_num_threads(1)
    options.device = "cpu"
    result: dict[str, Any] = {"machine": machine(options) | {"dry": options.dry}}
    if options.out.exists():  # sections measured before, on this machine and code
        known = json.loads(options.out.read_text())
        result = known if known["machine"] == result["machine"] else result
    print(json.dumps(result["machine"]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in SECTIONS if name in (options.sections or SECTIONS)]
    for name in chosen:
        print(f"\n## {name}: {SECTIONS[name].__doc__}\n", flush=True)
        result[name] = list(SECTIONS[name](DRY if options.dry else FULL))
        print(table(rounded(result[name])), flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        gc.collect()
    result["goals"] = check_goals(result)
    print(f"\n## goals\n\n{table(rounded(result['goals']))}")
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    if "decode" in result:
        path = options.picture or options.out.with_suffix(".png")
        picture.save(result["decode"], path)
        print(f"\n{path}")
    print(options.out)


if __name__ == "__main__":
    main()
