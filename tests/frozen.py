"""A run that freezes while another host takes its folder over: `python tests/frozen.py NAME ...`.

Two process namespaces stand for two hosts: neither sees the other's process numbers, so that the
heartbeat alone decides. The owner is stopped at a given moment, the lock ages, the successor does
the run, and the owner goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
SHELL = ["sh", "-c", '"$@"; exit $?', "sh"]
RUN = """
import sys
from experiments.config.compose import register, compose_config
from experiments.config.load import load
from experiments.results import lock
lock.STALE_SECONDS, lock.HEARTBEAT_SECONDS = 3.0, 0.5
from experiments.run.main import run
from experiments.errors import UserError
register()
import experiments.training.trainer
given = load(compose_config(sys.argv[1:]))
{stop}
try:
    run(given)
except UserError as error:
    sys.exit(str(error))
"""
# The owner stops itself where it would meet its successor, and says so first.
STOP = """
import os, signal, pathlib
def frozen(module, name, times=1, after=False):
    original, seen = getattr(module, name), []
    def stopping(*args, **kwargs):
        found = original(*args, **kwargs) if after else None
        seen.append(name)
        if len(seen) == times:
            pathlib.Path({mark!r}).touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return found if after else original(*args, **kwargs)
    setattr(module, name, stopping)
"""
MOMENTS = {
    "between evaluations": (
        "from experiments.results import predictions; frozen(predictions, 'save', 3)"
    ),
    "in a checkpoint": "import torch; frozen(torch, 'save', 3)",
    "before the record": "from experiments.run import session; frozen(session, 'write_record')",
    "while it fails": (
        "from experiments.run import session\n"
        "from experiments.training import scoring\n"
        "scoring.check = lambda *_: 1 / 0\n"
        "frozen(session, 'write_failure')"
    ),
    "while it replaces": (
        "from experiments.run import work_folder; frozen(work_folder, 'complete_repetition', 2)"
    ),
}
QUICK = ["train.epochs=6", "train.eval_every=1", "train.checkpoint_every=1", "train.device=cpu"]


def start(output: Path, stop: str = "", *overrides: str) -> subprocess.Popen:
    """A run on a host of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [*QUICK, f"output={output}", *overrides]
    return subprocess.Popen(
        # Behind a shell: the first process of a namespace cannot stop itself.
        [*ALONE, *SHELL, sys.executable, "-c", RUN.format(stop=stop), *command],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def frozen(output: Path) -> int:
    """Process number, here, of the run that is stopped; 0 if there is none."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stopped = (place / "stat").read_text().rpartition(")")[2].split()[0] == "T"
            if stopped and f"output={output}".encode() in (place / "cmdline").read_bytes():
                return int(place.name)
        except OSError:
            continue
    return 0


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, those outside of the run folder as well."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def scenario(name: str, folder: Path, undisturbed: Path) -> str:
    """Plays one; returns what was disturbed, or nothing.

    Args:
        name: the moment at which the owner freezes.
        folder: an empty folder.
        undisturbed: output of the same run, left alone.
    """
    from records import contents

    output, mark = folder / "runs", folder / "mark"
    force = ["force=true"] if name == "while it replaces" else []
    if force:
        shutil.copytree(undisturbed, output)
    owner = start(output, STOP.format(mark=str(mark)) + MOMENTS[name], *force)
    deadline = time.monotonic() + 240
    while not (mark.exists() and frozen(output)):
        if owner.poll() is not None or time.monotonic() > deadline:
            owner.kill()
            return f"the owner never froze: {owner.stdout.read()}"
        time.sleep(0.05)
    time.sleep(3.5)  # longer than the heartbeat may stay away
    successor = start(output, "", *force)
    told, _ = successor.communicate(timeout=400)
    if successor.returncode:
        owner.kill()
        return f"the successor failed: {told}"
    before = tree(output)
    os.kill(frozen(output), signal.SIGCONT)
    said, _ = owner.communicate(timeout=240)
    after = tree(output)
    changed = sorted(
        one for one in before.keys() | after.keys() if before.get(one) != after.get(one)
    )
    problems = [f"changed by the owner that woke: {changed}"] if changed else []
    whole = name == "while it replaces"  # the successor completes the owner's own repetition
    if not whole and (owner.returncode == 0 or "took over this folder" not in said):
        problems.append(f"the owner ended with {owner.returncode}: {said[-2000:]}")
    found = contents(output)
    earlier = {key for key in found if "replaced" in key}
    if len(earlier) != len(force):
        problems.append(f"moved aside: {sorted(earlier)}")
    for one in found.values():
        one["config"]["force"] = False
    if any(one != two for one in found.values() for two in contents(undisturbed).values()):
        problems.append("another record, history, adapter or predictions")
    place = next(path.parent for path in output.rglob("metrics.json") if "repl" not in str(path))
    left = [item.name for item in place.iterdir() if item.name in ("failure.json", "lock.json")]
    json.loads((place / "metrics.json").read_text())
    return "; ".join([*problems, *([f"left: {left}"] if left else [])])


def main() -> int:
    """Plays those named, or all; 0 if nothing was disturbed."""
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="frozen-") as whole:
        undisturbed = Path(whole)
        alone = start(undisturbed)
        said, _ = alone.communicate(timeout=400)
        if alone.returncode:
            sys.exit(f"the undisturbed run failed: {said}")
        for name in sys.argv[1:] or MOMENTS:
            with tempfile.TemporaryDirectory(prefix="frozen-") as folder:
                problem = scenario(name, Path(folder), undisturbed)
            wrong += bool(problem)
            print(f"{name}: {problem or 'nothing disturbed'}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
