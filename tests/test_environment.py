"""What a number was measured with."""

import json
import subprocess

import pytest

from experiments import environment


def test_description_is_json_and_names_the_versions():
    import torch

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
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return tmp_path, git("rev-parse", "HEAD")


def test_commit_and_changes(checkout):
    folder, head = checkout
    assert environment.commit() == {"commit": head, "dirty": False}
    (folder / "outputs").mkdir()
    (folder / "outputs" / "new").write_text("untracked")
    assert environment.commit()["dirty"] is False
    (folder / "file").write_text("2")
    assert environment.commit() == {"commit": head, "dirty": True}


def test_no_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.commit() == {"commit": None, "dirty": None}


def test_no_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.commit() == {"commit": None, "dirty": None}


def test_fingerprint_follows_the_weights_alone(tmp_path):
    def made(name, files):
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return environment.fingerprint_weights(str(folder))

    first = made("a", {"model.safetensors": b"1", "README.md": b"x"})
    assert first == made("b", {"model.safetensors": b"1", "README.md": b"y"})
    assert first != made("c", {"model.safetensors": b"2", "README.md": b"x"})
    shards = {"model-1-of-2.safetensors": b"1", "model-2-of-2.safetensors": b"2"}
    swapped = {"model-1-of-2.safetensors": b"2", "model-2-of-2.safetensors": b"1"}
    assert made("d", shards) != made("e", swapped)


def test_fingerprint_of_what_is_no_folder():
    class Loaded:
        _commit_hash = "abc"

    assert environment.fingerprint_weights(None) is None
    assert environment.fingerprint_weights("owner/name", Loaded()) == "abc"
    assert environment.fingerprint_weights("owner/name") is None


def test_peak_memory_is_of_the_block():
    memory = environment.Memory()
    first = memory.peak()["peak_rss"]
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    grown = memory.peak()["peak_rss"]
    if first is None:
        pytest.skip("no /proc: not measured")
    assert grown - first > 150 * 2**20
