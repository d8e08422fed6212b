"""Output that cannot be written: one sentence, and nothing that a later start must clear away."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.errors import DataError, Unwritable
from experiments.results import predictions
from experiments.results.identity import get_run_dir
from experiments.results.record import FAILURE
from experiments.results.run_folder import find_failure
from experiments.run import main, output_errors, work_folder

ROOT = Path(__file__).resolve().parent.parent
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (FULL, "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system", "/elsewhere"), "Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/a/b"), "Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/runs"), "No such file"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/"), "Not a directory"),
        (ValueError("I/O error: No space left on device (os error 28)"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:664]"), "the disk took only a part"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "the disk took only a part"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), None),
        (FileNotFoundError(errno.ENOENT, "No such file", "/runs-of-others/x"), None),
        (RuntimeError("out of memory"), None),
        (OSError("no number"), None),
    ],
)
def test_errors_are_told_apart(error, why):
    found = output_errors.find_reason(error, "/runs")
    assert found == why if why is None else found.startswith(why)


def test_the_cause_counts_too():
    with pytest.raises(Unwritable, match="output=/runs: cannot be written .No space left on dev"):
        with output_errors.translate_errors("/runs"):
            try:
                raise FULL
            except OSError as error:
                raise RuntimeError("while closing") from error


def test_what_was_being_handled_is_not_the_cause(tmp_path):
    """A mistake of the program while a file is missing, and a file that is read in vain."""
    try:
        try:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "gone/lock.json"))
        except OSError:
            raise KeyError("x")  # noqa: B904 (that is the point)
    except KeyError as error:
        assert output_errors.find_reason(error, str(tmp_path)) is None
    read = FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "config.json"))
    assert output_errors.find_reason(read, str(tmp_path)) is None
    assert output_errors.find_reason(DataError("No space left on device"), str(tmp_path)) is None


def test_other_errors_pass():
    for error in (DataError("x"), KeyError("x")):
        with pytest.raises(type(error)), output_errors.translate_errors("/runs"):
            raise error


TOY = [*("train.device=cpu", "train.epochs=2"), "method=fourierft"]


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
@pytest.mark.parametrize("place", ["/proc/nowhere", "FILE", "FILE/below"])
def test_a_place_that_cannot_be_written(tmp_path, place, sweep):
    (tmp_path / "file").write_text("mine")
    place = place.replace("FILE", str(tmp_path / "file"))
    done = subprocess.run(
        [sys.executable, "train.py", *TOY, *sweep, f"output={place}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith(f"train.py: output={place}: cannot be written (")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_on_a_full_disk_is_gone_on_with(compose, tmp_path, monkeypatch):
    config = compose([*TOY, f"output={tmp_path}"])
    store = predictions.save

    def full(place, split, entry):
        if entry.epoch > 1:
            raise FULL
        store(place, split, entry)

    with monkeypatch.context() as patch, pytest.raises(Unwritable) as caught:
        patch.setattr(predictions, "save", full)
        main.run(config)
    assert str(caught.value).startswith(f"output={tmp_path}: cannot be written (No space left")
    place = get_run_dir(config)
    assert not (place / FAILURE).exists() and find_failure(place, config) is None
    assert main.run(config).metrics["primary"]["value"] is not None
    assert not list(place.glob(work_folder.CHECKPOINTS))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Unwritable, match="Permission denied"):
        output_errors.make_folder(str(tmp_path / "runs"))
