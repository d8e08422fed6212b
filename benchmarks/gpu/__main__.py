"""Measure on a GPU, or rehearse on a CPU: `python -m benchmarks.gpu [--dry]`.

`report RESULT` prints a result as Markdown; `pack OUT` bundles what a machine without internet
lacks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import pack, report


def run(arguments: list[str]) -> None:
    """Run the chosen sections."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="default: all, in order")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--minutes", type=float, help="of everything (default: 8, dry 2)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/gpu"))
    parser.add_argument("--data", type=Path, help="folder of GLUE's rte, mrpc, stsb, cola")
    parser.add_argument("--weights", type=Path, help="folder of MiniLM (default: the package)")
    parser.add_argument("--jobs", type=int, default=8, help="training runs at a time")
    options = parser.parse_args(arguments)

    import torch

    from benchmarks.gpu.order import SECTIONS
    from benchmarks.gpu.sections import Plan, find_failures, run_sections
    from experiments.results import environment

    problems = []
    if unknown := set(options.sections) - SECTIONS.keys():
        problems.append(f"{', '.join(sorted(unknown))}: allowed {', '.join(SECTIONS)}")
    if not options.dry and not torch.cuda.is_available():
        problems.append("no CUDA device here; --dry rehearses on the CPU")
    if options.data and not options.data.is_dir():
        problems.append(f"--data={options.data}: not a folder")
    if options.weights and not options.weights.is_dir():
        problems.append(f"--weights={options.weights}: not a folder")
    if options.jobs < 1 or (options.minutes is not None and options.minutes <= 0):
        problems.append("--jobs and --minutes: allowed from 1, and above 0")
    if problems:
        sys.exit("benchmarks.gpu: " + "; ".join(problems))
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        device="cpu" if options.dry else "cuda",
        tiny=options.dry,
        seconds=0.0 if options.dry else 0.4,
        out=out,
        data=options.data and options.data.resolve(),
        weights=options.weights and options.weights.resolve(),
        jobs=options.jobs,
    )
    chosen = {name: SECTIONS[name] for name in SECTIONS if name in (options.sections or SECTIONS)}
    result: dict[str, Any] = {"machine": environment.describe() | {"dry": options.dry}}
    run_sections(chosen, plan, result, options.minutes or (2.0 if options.dry else 8.0))
    print("\n" + report.render(result) + f"\n{out / 'result.json'}")
    failures = find_failures(result)
    print("\n".join(["failed:", *failures] if failures else ["nothing failed"]))
    # On a GPU a failure is a result; a rehearsal is there to find what would fail.
    if options.dry and failures:
        sys.exit(1)


def main() -> None:
    """Choose between the measurement and the other commands."""
    words = sys.argv[1:]
    if words[:1] == ["report"]:
        parser = argparse.ArgumentParser(prog="benchmarks.gpu report")
        parser.add_argument("result", type=Path, help="result.json")
        path = parser.parse_args(words[1:]).result
        if not path.is_file():
            sys.exit(f"benchmarks.gpu: {path}: not a file, expected a result.json")
        print(report.render(json.loads(path.read_text())), end="")
    elif words[:1] == ["pack"]:
        pack.main(words[1:])
    else:
        run(words)


if __name__ == "__main__":
    main()
