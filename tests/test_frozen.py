"""A run that freezes, is taken over by another host and goes on: it must disturb nothing."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from frozen import MOMENTS, STALE_SECONDS
from processes import Started
from records import contents

from experiments.run.main import run

QUICK = ["train.epochs=6", "train.eval_every=1", "train.checkpoint_every=1", "train.device=cpu"]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, those outside of the run folder as well."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


class Scenario:
    """An owner that freezes at a moment, and its successor."""

    def __init__(self, moment: str, folder: Path, undisturbed: Path):
        self.moment, self.output, self.mark = moment, folder / "runs", folder / "mark"
        self.force = ["force=true"] if moment == "while_it_replaces" else []
        if self.force:
            shutil.copytree(undisturbed, self.output)
        self.undisturbed = contents(undisturbed)
        self.owner = self.start(moment)

    def start(self, moment: str) -> Started:
        given = [*QUICK, f"output={self.output}", *self.force]
        return Started("tests/frozen.py", moment, str(self.mark), *given)

    def is_frozen(self) -> bool:
        assert self.owner.poll() is None, f"{self.moment}: {self.owner.log.read_text()}"
        if not (self.mark.exists() and self.mark.read_text()):
            return False
        stat = Path("/proc", self.mark.read_text(), "stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def take_over(self) -> None:
        self.successor = self.start("never")

    def check_successor(self) -> None:
        said, _ = self.successor.communicate(timeout=300)
        assert self.successor.returncode == 0, f"{self.moment}: {said}"
        self.before = tree(self.output)

    def wake(self) -> None:
        os.kill(int(self.mark.read_text()), signal.SIGCONT)

    def check_owner(self) -> None:
        said, _ = self.owner.communicate(timeout=300)
        assert tree(self.output) == self.before, f"{self.moment}: changed by the owner that woke"
        if not self.force:  # else the successor completed the owner's own repetition
            assert self.owner.returncode != 0, self.moment
            assert "took over this folder" in said, f"{self.moment}: {said}"
        found = contents(self.output)
        moved = {key for key in found if "replaced" in key}
        assert len(moved) == len(self.force), self.moment
        for one in found.values():
            one["config"]["force"] = False
        (whole,) = self.undisturbed.values()
        assert all(one == whole for one in found.values()), f"{self.moment}: another record"
        (place,) = (path.parent for path in self.output.rglob("seed=0/metrics.json"))
        assert not {"failure.json", "lock.json"} & {item.name for item in place.iterdir()}


@pytest.mark.slow
def test_an_owner_that_wakes_disturbs_nothing(compose, tmp_path):
    """All moments at once, so that they wait together."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"]
    if not shutil.which("unshare") or subprocess.run(alone, capture_output=True).returncode:
        pytest.skip("no process namespaces here (unshare)")
    undisturbed = tmp_path / "undisturbed"
    run(compose([*QUICK, f"output={undisturbed}"]))
    scenarios = [Scenario(moment, tmp_path / moment, undisturbed) for moment in MOMENTS]
    deadline = time.monotonic() + 240
    while not all(one.is_frozen() for one in scenarios):
        assert time.monotonic() < deadline, "an owner never froze"
        time.sleep(0.05)
    time.sleep(STALE_SECONDS + 0.5)
    for step in (Scenario.take_over, Scenario.check_successor, Scenario.wake, Scenario.check_owner):
        for one in scenarios:
            step(one)
