"""Runs the experiments of this folder in PEFT's MetaMathQA benchmark.

    python docs/peft_benchmark/run.py PEFT

PEFT is a clone of its repository, with what its benchmark needs (`method_comparison/MetaMathQA`);
the weights are meta-llama/Llama-3.2-3B. Each experiment is copied into the benchmark and run there,
as the benchmark's own are; results lie where it puts them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
METHOD = Path("experiments/fourierft")


def build_command(experiment: Path) -> list[str]:
    """Return the command of one experiment; ours replaces PEFT's tuner first, in that process."""
    settings = json.loads((experiment / "adapter_config.json").read_text())
    arguments = ["run.py", "-v", str(METHOD / experiment.name)]
    if settings["peft_type"] == "FOURIERFT":
        return [sys.executable, *arguments]
    code = (
        "import runpy, sys; sys.path[:0] = ['', sys.argv.pop(1)]; import fourierft; "
        "sys.argv = sys.argv[1:]; runpy.run_path('run.py', run_name='__main__')"
    )
    return [sys.executable, "-c", code, str(HERE.parent.parent), *arguments]


def main(arguments: list[str]) -> int:
    """Copy and run every experiment; return the first exit status that is not 0."""
    benchmark = Path(*arguments) / "method_comparison" / "MetaMathQA"
    if len(arguments) != 1 or not (benchmark / "run.py").is_file():
        print(f"{__doc__}\n{benchmark}/run.py: not found", file=sys.stderr)
        return 2
    for experiment in sorted((HERE / METHOD).iterdir()):
        shutil.copytree(experiment, benchmark / METHOD / experiment.name, dirs_exist_ok=True)
        status = subprocess.run(build_command(experiment), cwd=benchmark).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
