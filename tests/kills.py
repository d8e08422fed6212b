"""Kills of whole runs, at random moments and at every file operation: `python tests/kills.py`.

A process that has imported everything forks, so that a kill costs a fraction of a second. Every
run that was killed is started again until it ends, and must then be, apart from times, the run that
nobody disturbed, with nothing left beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

for root in (Path(__file__).parent, Path(__file__).parent.parent):
    sys.path.insert(0, str(root))

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod"}
QUICK = ["train.checkpoint_every=1", "train.device=cpu", "method=lora"]
QUICK += ["train.epochs=4", "train.eval_every=1"]
FILES = {"metrics.json", "config.yaml", "history.jsonl", "adapter", "predictions", "run.log"}
FILES |= {"regions.npz"}


def child(config, errors: Path, at: int | None = None, counted: Path | None = None) -> int:
    """Forks a run.

    Args:
        config: what to run.
        errors: file for the traceback of a run that fails.
        at: number of the file operation before which the run kills itself.
        counted: file that gets the number of operations.

    Returns:
        Its process number.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        root, done = config.output, 0

        def count(event, arguments):
            nonlocal done
            if event == "open":
                path, _, flags = arguments
                if not (flags or 0) & WRITES or not str(path).startswith(root):
                    return
            elif event not in CHANGES:
                return
            elif not any(str(one).startswith((root, ".")) for one in arguments) and (
                arguments[-1] == -1
            ):
                return
            if done == at:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

        sys.addaudithook(count)
        from experiments.run.main import run

        run(config)
        if counted is not None:
            counted.write_text(str(done))
        os._exit(0)
    except BaseException:
        errors.write_text(traceback.format_exc())
        os._exit(1)


def ended(pid: int) -> bool:
    """Waits; True if the process went to its end, False if it was killed."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with {status}")
    return status == 0


class Trial:
    """One run that is killed and started again, below a folder of its own."""

    def __init__(self, folder: Path, name: str, config, finished: Path | None):
        self.folder, self.name, self.finished = folder / name, name, finished
        self.config = copy.deepcopy(config)
        self.config.output, self.config.force = str(self.folder), finished is not None
        self.errors = folder / f"{name}.error"
        if finished is not None:
            shutil.copytree(finished, self.folder)

    def start(self, at: int | None = None, counted: Path | None = None) -> int:
        # Whole already, and killed behind that: `force` would repeat it once more.
        self.config.force = self.config.force and not self._replaced()
        return child(self.config, self.errors, at, counted)

    def _replaced(self) -> bool:
        found = {path.parent.name for path in self.folder.rglob("metrics.json")}
        return {"seed=0", "seed=0.replaced-1"} <= found

    def finish(self) -> None:
        """Starts again without a kill."""
        try:
            ended(self.start())
        except SystemExit as error:
            raise SystemExit(f"{self.name}: {error}\n{self.errors.read_text()}") from None

    def check_nothing_lost(self) -> None:
        """A finished run that is repeated is somewhere, whole, whenever the repetition dies."""
        if self.finished is not None and not list(self.folder.rglob("metrics.json")):
            raise SystemExit(f"{self.name}: the finished run is lost")

    def check(self, whole: dict) -> None:
        """Compares with the undisturbed run, and looks for what is left."""
        from records import contents

        found = contents(self.folder)
        place = next(self.folder.rglob("seed=0"))
        beside = {item.name for item in place.parent.iterdir()} - {"seed=0"}
        expected, problems = set(), []
        if self.finished is not None:
            expected = {"seed=0.replaced-1"}
            old = next((key for key in found if "replaced" in key), None)
            if old is None or found.pop(old) != contents(self.finished).popitem()[1]:
                problems.append("the earlier run is not as it was")
            for one in found.values():
                one["config"]["force"] = False
        if found != whole:
            problems.append(f"another run than the undisturbed one: {sorted(found)}")
            problems += [
                f"another {part}"
                for key, run in whole.items()
                for part in run
                if key in found and found[key][part] != run[part]
            ]
        left = {item.name for item in place.iterdir()} ^ FILES
        if left or beside != expected:
            problems.append(f"left or lacking: {sorted(left)}, beside it {sorted(beside)}")
        if problems:
            raise SystemExit(f"{self.name}: {'; '.join(problems)}")
        shutil.rmtree(self.folder)


def main() -> None:
    """Says how many kills there were, or ends with what one of them has broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=200, help="kills at random moments")
    parser.add_argument("--stride", type=int, default=1, help="of the file operations, each nth")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    import peft
    import torch
    import transformers.trainer  # noqa: F401
    from records import contents

    import experiments.run.main
    from experiments.config.compose import compose_config, register
    from experiments.config.load import load_config
    from experiments.metrics import selection
    from experiments.run import data_cache

    torch.set_num_threads(1)
    selection.RESAMPLES = 5
    peft.PeftModel.create_or_update_model_card = lambda *_: None  # prose, and half of the time
    register()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        folder = Path(temporary)
        os.environ["FOURIERFT_CACHE"] = str(folder / "cache")
        config = load_config(compose_config([*QUICK, f"output={folder}/x"]))
        warm = copy.deepcopy(config)
        warm.output = str(folder / "warm")
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            experiments.run.main.run(warm)  # what is imported late is imported now
        data_cache._last = None
        whole = Trial(folder, "whole", config, None)
        began = time.monotonic()
        counted = folder / "counted"
        if not ended(whole.start(counted=counted)):
            raise SystemExit(whole.errors.read_text())
        lasts, plain = time.monotonic() - began, int(counted.read_text())
        undisturbed = contents(whole.folder)
        forced = Trial(folder, "forced", config, whole.folder)
        if not ended(forced.start(counted=counted)):
            raise SystemExit(forced.errors.read_text())
        forced.check(undisturbed)
        operations = {False: plain, True: int(counted.read_text())}
        print(f"a run lasts {lasts:.2f} s and has {operations} file operations", flush=True)

        kills = 0
        for force, number in operations.items():
            for at in range(asked.seed % asked.stride, number, asked.stride):
                trial = Trial(folder, f"at{at}-{force}", config, whole.folder if force else None)
                kills += not ended(trial.start(at=at))
                trial.check_nothing_lost()
                trial.finish()
                trial.check(undisturbed)
        print(f"{kills} kills at file operations: every record is that of one run", flush=True)

        draw, kills, trials = random.Random(asked.seed), 0, 0
        while kills < asked.random:
            trials += 1
            finished = whole.folder if draw.random() < 0.5 else None
            trial = Trial(folder, f"random{trials}", config, finished)
            for _ in range(draw.randrange(1, 4)):
                pid = trial.start()
                time.sleep(draw.uniform(0, lasts))
                os.kill(pid, signal.SIGKILL)
                if ended(pid):
                    break
                kills += 1
                trial.check_nothing_lost()
            else:
                trial.finish()
            trial.check(undisturbed)
        print(f"{kills} random kills of {trials} runs: every record is that of one run")


if __name__ == "__main__":
    main()
