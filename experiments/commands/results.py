"""Recompute or export records: `python -m experiments.results verify|export [OUTPUTS]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments import console
from experiments.commands import peft_results, verify
from experiments.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the requested command.

    Returns:
        0 if every record matches or was exported, 1 if one does not or cannot be, 2 for a command
        that does not exist.
    """
    asked = _parse(arguments)
    if not asked.outputs.is_dir():
        print(f"{asked.outputs}: no such folder", file=sys.stderr)
        return 1
    try:
        if asked.command == "verify":
            return verify.verify_runs(asked.outputs)
        return peft_results.export_records(
            asked.outputs, asked.to or asked.outputs / "method_comparison"
        )
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.results", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    told = "recompute every metric, verdict and claim from stored predictions and generations"
    commands.add_parser("verify", help=told, description=told)
    told = "write every trained run as a result file of PEFT's method_comparison"
    export = commands.add_parser("export", help=told, description=told)
    export.add_argument("--to", type=Path, help="folder (OUTPUTS/method_comparison)")
    for command in commands.choices.values():
        command.add_argument(
            "outputs",
            nargs="?",
            type=Path,
            default=Path("outputs"),
            help="folder of the runs (%(default)s)",
        )
    asked = parser.parse_args(arguments)
    asked.to = getattr(asked, "to", None)
    return asked


if __name__ == "__main__":
    console.run_command("experiments.results", main)
