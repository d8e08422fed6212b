"""Checkpoints that a kill, a full disk or a power cut left damaged."""

import json
import shutil

import pytest

from experiments.training import checkpoints

FILES = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trained.safetensors"]
STATE = "trainer_state.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three checkpoints as the Trainer writes them."""
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("checkpoints")
    for step in (10, 20, 30):
        folder = root / f"checkpoint-{step}"
        folder.mkdir()
        for name in FILES[:3]:
            torch.save({"values": torch.arange(50.0) + step}, folder / name)
        save_file({"w": torch.arange(50.0), "v": torch.ones(3)}, folder / FILES[3])
        (folder / STATE).write_text(json.dumps({"global_step": step}))
    return root


@pytest.fixture
def folder(written, tmp_path):
    shutil.copytree(written, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"\0\0\xf8A")] ^= 1  # of the float 31.0
    path.write_bytes(content)


def overwrite(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def test_the_newest_whole_one_counts(folder, caplog):
    assert checkpoints.find_latest(folder) == (folder / "checkpoint-30", 30)
    assert not caplog.messages and len(list(folder.iterdir())) == 3
    assert checkpoints.find_latest(folder / "nowhere") == (None, 0)


@pytest.mark.parametrize("damage", [truncate, empty, overwrite, lambda path: path.unlink()])
@pytest.mark.parametrize("name", [*FILES, STATE])
def test_a_damaged_one_gives_way_to_the_one_before(folder, caplog, name, damage):
    damage(folder / "checkpoint-30" / name)
    assert checkpoints.find_latest(folder) == (folder / "checkpoint-20", 20)
    assert sorted(item.name for item in folder.iterdir()) == ["checkpoint-10", "checkpoint-20"]
    if (name, damage.__name__) != (STATE, "<lambda>"):  # what a kill leaves is no damage
        (said,) = caplog.messages
        assert "checkpoint-30: damaged, " in said and said.endswith("; it is deleted")


@pytest.mark.parametrize("name", FILES[:3])
def test_a_flipped_bit_is_noticed(folder, name):
    flip(folder / "checkpoint-30" / name)
    assert checkpoints.find_latest(folder)[1] == 20


def test_without_a_whole_one_the_run_starts_anew_and_says_so(folder, caplog):
    for step, name in ((10, FILES[0]), (20, FILES[3]), (30, STATE)):
        truncate(folder / f"checkpoint-{step}" / name)
    assert checkpoints.find_latest(folder) == (None, 0)
    assert caplog.messages[-1] == "no whole checkpoint is left: the run starts anew"
    assert not list(folder.iterdir())


def test_other_names_and_other_steps(folder):
    (folder / "checkpoint-30").rename(folder / "checkpoint-40")
    (folder / "checkpoint-old").mkdir()
    assert checkpoints.find_latest(folder) == (folder / "checkpoint-20", 20)
    assert (folder / "checkpoint-old").exists()
    assert checkpoints.find_latest(folder, before=20) == (folder / "checkpoint-10", 10)
