"""What a number was measured with."""

import json
import subprocess

import pytest
import torch

from experiments.errors import UserError
from experiments.results import environment
from experiments.training.backends import check_device
from experiments.training.train_config import Precision, Train


def test_description_is_json_and_names_the_versions():
    found = environment.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["peft"] and found["python"].count(".") == 2
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1


def test_absent_package_is_none(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package-here"))
    assert environment.describe()["versions"]["no-such-package-here"] is None


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository with one commit."""

    def git(*words):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    return tmp_path, git("rev-parse", "HEAD")


def test_commit_and_changes(checkout):
    folder, head = checkout
    assert environment.describe_commit() == {"commit": head, "dirty": False}
    (folder / "outputs").mkdir()
    (folder / "outputs" / "new").write_text("untracked")
    assert environment.describe_commit()["dirty"] is False
    (folder / "file").write_text("2")
    assert environment.describe_commit() == {"commit": head, "dirty": True}


def test_no_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.describe_commit() == {"commit": None, "dirty": None}


def test_no_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.describe_commit() == {"commit": None, "dirty": None}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_what_this_machine_cannot_train_is_refused():
    recipe = {"epochs": 1, "batch_size": 1, "learning_rate": 1}
    check_device(Train(**recipe))
    with pytest.raises(UserError) as refusal:
        check_device(Train(**recipe, device="cuda", precision=Precision.fp16))
    assert len(refusal.value.problems) == 2


def test_peak_memory_is_of_the_block():
    memory = environment.PeakMemory()
    first = memory.peak()["peak_rss"]
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    grown = memory.peak()
    if first is None:
        pytest.skip("no /proc: not measured")
    assert grown["peak_rss"] - first > 150 * 2**20
    assert grown["taken"] == grown["peak_gpu"] or grown["taken"] > 150 * 2**20


def test_memory_of_a_later_run_is_its_own():
    """Not what it needs beyond the memory that an earlier run has freed."""

    def allocate():
        blocks = [bytearray(2**16) for _ in range(3000)]  # small enough for malloc to keep
        for block in blocks:
            block[::4096] = b"x" * 16
        return blocks

    memory = environment.PeakMemory()
    if memory.peak()["peak_rss"] is None or memory.peak()["peak_gpu"] is not None:
        pytest.skip("not measured by the process's size")
    earlier = allocate()
    pins = earlier[::30]  # so that it cannot just shrink the heap
    first = memory.peak()["taken"]
    del earlier
    memory = environment.PeakMemory()
    later = allocate()
    assert memory.peak()["taken"] > 0.8 * first > 100 * 2**20
    assert len(pins) + len(later) == 3100
