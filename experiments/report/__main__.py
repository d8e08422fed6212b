"""Shows tables and figures beside the paper's: `python -m experiments.report [table1 figure7]
[--outputs outputs]`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from experiments.errors import RecordError
from experiments.report import evidence, paper
from experiments.report.page import Page


def main(arguments: list[str] | None = None) -> int:
    """Prints and writes what was asked for.

    Returns:
        0 if all of it was shown (with or without runs), 1 if something could not be, 2 for an
        unknown name.
    """
    known = paper.names()
    asked = _parse(arguments, known)
    unknown = [name for name in asked.names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    if not asked.outputs.is_dir():
        print(f"{asked.outputs}: no such folder, so nothing in it was run", file=sys.stderr)
    found = evidence.collect(asked.outputs)
    failures = 0
    for name in dict.fromkeys(asked.names or known):
        try:
            page: Page = importlib.import_module(f"experiments.report.{name}").show(
                paper.load(name), found
            )
            print(page.text)
            print(f"written: {', '.join(map(str, page.write(asked.to, name)))}\n", flush=True)
        except (RecordError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failures += 1
    for line in found.damaged:
        print(f"left out: {line}", file=sys.stderr)
    return 1 if failures else 0


def _parse(arguments: list[str] | None, known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Sets recorded runs beside the paper's tables and figures; runs nothing.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(known)}; none: all of them"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, help="folder to write to (OUTPUTS/report)")
    asked = parser.parse_args(arguments)
    asked.to = asked.to or asked.outputs / "report"
    return asked


if __name__ == "__main__":
    sys.exit(main())
