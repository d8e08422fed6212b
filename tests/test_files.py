"""Files that are whole, seen, and kept where they may be."""

import pytest

from experiments import files
from experiments.errors import UserError
from experiments.hub.fingerprints import find_weights


def test_the_cache_of_a_user_without_a_home(tmp_path, monkeypatch):
    for name in ("FOURIERFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: str(path))  # neither HOME nor an entry
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert files.get_cache_folder("x").parent.parent == tmp_path
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "own"))
    assert files.get_cache_folder("x") == tmp_path / "own/x"
    monkeypatch.setenv("FOURIERFT_CACHE", "/proc/nowhere")
    with pytest.raises(UserError, match="/proc/nowhere/x: cannot be created .*set FOURIERFT_CACHE"):
        files.get_cache_folder("x")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), files.replace_file(path) as draft:
        draft.write_bytes(b"ne")
        raise KeyError
    assert path.read_bytes() == b"old"
    with files.replace_file(path) as draft:
        draft.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["x.npz"] and path.read_bytes() == b"new"


def test_hidden_files_are_not_seen(tmp_path):
    for name in ("b.safetensors", "a.safetensors", "._a.safetensors", ".c.safetensors"):
        (tmp_path / name).write_bytes(b"")
    seen = files.list_visible(tmp_path, "*.safetensors")
    assert [path.name for path in seen] == ["a.safetensors", "b.safetensors"]
    assert find_weights(tmp_path).paths == seen
    assert files.list_visible(tmp_path / "nowhere", "*") == []
