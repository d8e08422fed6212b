"""Fingerprints follow contents, and are remembered only while nothing can have changed."""

import json
import os
import time
from pathlib import Path

import pytest

from experiments import hub
from experiments.hub import fingerprints
from experiments.hub.fingerprints import Files, compute_fingerprint, find_weights, read_remembered


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/fingerprints"


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were opened."""
    opened, plain = [], fingerprints.hashlib.file_digest
    monkeypatch.setattr(
        fingerprints.hashlib,
        "file_digest",
        lambda file, kind: (opened.append(Path(file.name).name), plain(file, kind))[1],
    )
    return opened


def made(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def settled(monkeypatch):
    """As if all files had been written a while ago."""
    now = time.time()
    monkeypatch.setattr(fingerprints.time, "time", lambda: now + 60)


def test_weights_follow_the_weights_alone(tmp_path):
    def of(name, files):
        return compute_fingerprint(find_weights(made(tmp_path / name, files)))

    first = of("a", {"model.safetensors": b"1", "README.md": b"x"})
    assert first == of("b", {"model.safetensors": b"1", "README.md": b"y"})
    assert first != of("c", {"model.safetensors": b"2", "README.md": b"x"})
    shards = {"model-1-of-2.safetensors": b"1", "model-2-of-2.safetensors": b"2"}
    swapped = {"model-1-of-2.safetensors": b"2", "model-2-of-2.safetensors": b"1"}
    assert of("d", shards) != of("e", swapped)
    assert of("f", shards) != of("g", shards | {"model-3-of-3.safetensors": b"3"})


def test_shards_in_subfolders_are_found_by_their_index(tmp_path):
    index = {"weight_map": {"a": "one/model.safetensors", "b": "two/model.safetensors"}}
    files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "one/model.safetensors": b"1",
        "two/model.safetensors": b"2",
        "other/model.safetensors": b"3",
    }
    first = compute_fingerprint(find_weights(made(tmp_path / "a", files)))
    changed = compute_fingerprint(
        find_weights(made(tmp_path / "b", files | {"two/model.safetensors": b"x"}))
    )
    unread = compute_fingerprint(
        find_weights(made(tmp_path / "c", files | {"other/model.safetensors": b"x"}))
    )
    assert first == unread != changed


def test_a_copy_and_the_hubs_cache_are_the_same(tmp_path, monkeypatch):
    from huggingface_hub import constants

    folder = made(tmp_path / "copy", {"model.safetensors": b"1"})
    snapshot = tmp_path / "hub/models--owner--name/snapshots/abc"
    made(snapshot, {"model.safetensors": b"1"})
    made(tmp_path / "hub/models--owner--name/refs", {"main": b"abc"})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert hub.locate_local("owner/name", None) == snapshot
    assert hub.locate_local("owner/name", str(folder)) == folder
    assert hub.locate_local("owner/name", str(tmp_path / "gone")) is None
    assert hub.locate_local("owner/other", None) is None
    assert compute_fingerprint(find_weights(snapshot)) == compute_fingerprint(find_weights(folder))


def test_names_count_where_they_mean_something(tmp_path):
    one = made(tmp_path / "a", {"cat/1.png": b"1", "dog/1.png": b"2"})
    two = made(tmp_path / "b", {"cat/1.png": b"2", "dog/1.png": b"1"})
    three = made(tmp_path / "c", {"cat/1.png": b"1", "cow/1.png": b"2"})

    def of(folder, below):
        return compute_fingerprint(Files(paths=sorted(folder.rglob("*.png")), below=below))

    assert len({of(folder, folder) for folder in (one, two, three)}) == 3
    assert of(one, None) == of(three, None)


def test_a_tokenizer_is_what_transformers_reads(tmp_path):
    files = {"tokenizer.json": b"{}", "vocab.txt": b"a", "tokenizer_config.json": b"{}"}
    whole = fingerprints.find_tokenizer(made(tmp_path / "a", files))
    assert [path.name for path in whole.paths] == ["tokenizer.json", "tokenizer_config.json"]
    slow = fingerprints.find_tokenizer(
        made(tmp_path / "b", {"vocab.txt": b"a", "merges.txt": b"b"})
    )
    assert [path.name for path in slow.paths] == ["merges.txt", "vocab.txt"]


def test_files_are_read_once(tmp_path, monkeypatch, reads):
    files = find_weights(made(tmp_path / "a", {"model.safetensors": b"1"}))
    settled(monkeypatch)
    assert compute_fingerprint(files) == compute_fingerprint(files) == read_remembered(files)
    assert reads == ["model.safetensors"]


def test_a_file_that_was_just_written_is_read_again(tmp_path, reads, cache):
    """Its next change may fall into the same tick of the clock."""
    files = find_weights(made(tmp_path / "a", {"model.safetensors": b"1"}))
    assert compute_fingerprint(files) == compute_fingerprint(files)
    assert len(reads) == 2 and read_remembered(files) is None
    assert not any(cache.iterdir())


def in_place(path):
    with path.open("r+b") as file:
        file.write(b"2")


def replaced(path):
    draft = path.with_name("draft")
    draft.write_bytes(b"2")
    os.replace(draft, path)


def grown(path):
    path.write_bytes(b"11")


@pytest.mark.parametrize("keep_time", [False, True])
@pytest.mark.parametrize("change", [in_place, replaced, grown])
def test_every_change_is_noticed(change, keep_time, tmp_path, monkeypatch):
    """Also where size and time of writing are set back, as `cp -p` and `rsync -t` do."""
    path = made(tmp_path / "a", {"model.safetensors": b"1"}) / "model.safetensors"
    files = find_weights(path.parent)
    settled(monkeypatch)
    before, times = compute_fingerprint(files), path.stat()
    time.sleep(0.02)  # more than a tick of the file system's clock
    change(path)
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert compute_fingerprint(files) != before


@pytest.mark.parametrize("content", ["", "f" * 63, "not a fingerprint"])
def test_a_damaged_memory_is_none(content, tmp_path, monkeypatch, cache):
    files = find_weights(made(tmp_path / "a", {"model.safetensors": b"1"}))
    settled(monkeypatch)
    found = compute_fingerprint(files)
    (memory,) = cache.iterdir()
    memory.write_text(content)
    assert read_remembered(files) is None and compute_fingerprint(
        files
    ) == found == read_remembered(files)


def test_without_a_place_for_memory_files_are_read_again(tmp_path, monkeypatch, reads):
    files = find_weights(made(tmp_path / "a", {"model.safetensors": b"1"}))
    made(tmp_path, {"file": b""})
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "file"))
    settled(monkeypatch)
    assert compute_fingerprint(files) == compute_fingerprint(files) and len(reads) == 2
