"""Pages of runs by name, with pictures of their updates: `python -m experiments.report run RUN`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.report.comparison import run_index
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.pages import registry
from experiments.report.render import site


def main(arguments: list[str]) -> int:
    """Write the pages of the named runs; return 1 if one of them is not a finished run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report run",
        description="Write the pages of runs, with pictures of what training added to the weights.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, help="folder to write to (OUTPUTS/report)")
    asked = parser.parse_intermixed_args(arguments)
    to = asked.to or asked.outputs / "report"
    index = run_index.collect(asked.outputs)
    named = {name: _find(name, index) for name in asked.runs}
    for name in (name for name, run in named.items() if run is None):
        print(f"{name}: {_explain(name, index)}", file=sys.stderr)
    runs = [run for run in named.values() if run is not None]
    if runs:
        site.write([], index, to, registry.menu(), whole=False, named=runs)
    for run in runs:
        print(site.find_page(to, index.name(run)))
    return 1 if len(runs) < len(named) else 0


def _find(name: str, index: RunIndex) -> Run | None:
    """Return the run of a folder, given from here or from the output folder."""
    places = {Path(name).resolve(), (index.root / name).resolve()}
    return next((run for run in index.runs if run.run_dir.resolve() in places), None)


def _explain(name: str, index: RunIndex) -> str:
    places = {Path(name).resolve(), (index.root / name).resolve()}
    for record in index.excluded:
        if record.path.parent.resolve() in places:
            return f"{record.kind}, {record.reason}"
    return f"not the folder of a finished run below {index.root} (--outputs FOLDER: another)"
