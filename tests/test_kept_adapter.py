"""The adapter that a run keeps: replaced in one step, taken back to a checkpoint, compared."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from experiments.errors import RecordError
from experiments.results import kept_adapter
from experiments.results.record import Record

EMPTY = {"run": {}, "config": {}, "parameters": {}, "time": {}, "memory": {}, "environment": {}}


def write(value):
    """What fills a folder with an adapter of this value."""
    return lambda folder: save_file({"c": torch.tensor([value])}, folder / "model.safetensors")


def value(run):
    from safetensors.torch import load_file

    return load_file(run / "adapter/model.safetensors")["c"].item()


def test_each_replaces_the_one_before(tmp_path):
    for step in (10, 20):
        kept_adapter.replace(tmp_path, step, write(step), checkpoint=0)
        assert value(tmp_path) == step
    assert [item.name for item in tmp_path.iterdir()] == ["adapter"]
    assert kept_adapter.verify(tmp_path, 20) == kept_adapter.compute_hashes(tmp_path / "adapter")
    assert list(kept_adapter.compute_hashes(tmp_path / "adapter")) == ["model.safetensors"]


def test_a_run_goes_on_with_the_adapter_that_was_best_at_its_checkpoint(tmp_path):
    """Two better ones after the checkpoint, which the run that goes on may not meet again."""
    kept_adapter.replace(tmp_path, 10, write(1.0), checkpoint=0)
    kept_adapter.replace(tmp_path, 30, write(3.0), checkpoint=20)
    kept_adapter.replace(tmp_path, 40, write(4.0), checkpoint=20)
    assert kept_adapter.restore(tmp_path, 20) and value(tmp_path) == 1.0
    assert kept_adapter.verify(tmp_path, 10)
    assert kept_adapter.restore(tmp_path, 20) and value(tmp_path) == 1.0, "twice is as good as once"
    assert not kept_adapter.restore(tmp_path, 5)
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_of_an_earlier_version_is_adopted(tmp_path):
    """It was kept without a label; the history tells the step that it is of."""
    for step, goes_on in ((10, True), (30, False)):
        kept_adapter.replace(tmp_path, 10, write(1.0), checkpoint=0)
        (tmp_path / "adapter" / kept_adapter.LABEL).unlink()
        kept_adapter.add_label(tmp_path, step)
        assert kept_adapter.restore(tmp_path, 20) == goes_on
    kept_adapter.replace(tmp_path, 10, write(1.0), checkpoint=0)
    kept_adapter.add_label(tmp_path, 30)
    assert kept_adapter.verify(tmp_path, 10), "a label that is there stays"


@pytest.mark.parametrize("at", ["kept", "spare"])
def test_a_kill_while_it_is_replaced_leaves_one_of_the_two(tmp_path, monkeypatch, at):
    """Between the steps: the earlier one aside, the new one not yet in place."""
    kept_adapter.replace(tmp_path, 10, write(1.0), checkpoint=0)
    checkpoint = 20 if at == "spare" else 5

    class Killed(BaseException):
        pass

    rename, done = type(tmp_path).rename, []

    def renaming(path, target):
        if path.name == ".adapter.tmp":
            raise Killed
        done.append(target)
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", renaming)
    with pytest.raises(Killed):
        kept_adapter.replace(tmp_path, 30, write(3.0), checkpoint=checkpoint)
    monkeypatch.undo()
    if at == "spare":
        assert kept_adapter.restore(tmp_path, checkpoint) and value(tmp_path) == 1.0
    else:  # 10 is after the checkpoint, and will be kept again
        assert not kept_adapter.restore(tmp_path, checkpoint)


def test_what_was_removed_or_altered_during_the_run_is_noticed(tmp_path):
    kept_adapter.replace(tmp_path, 10, write(1.0), checkpoint=0)
    with pytest.raises(RecordError, match="found step 10, expected step 20 of the selected score"):
        kept_adapter.verify(tmp_path, 20)
    save_file({"c": torch.tensor([2.0])}, tmp_path / "adapter/model.safetensors")
    with pytest.raises(RecordError, match="altered since"):
        kept_adapter.verify(tmp_path, 10)
    assert not kept_adapter.restore(tmp_path, 10)
    with pytest.raises(RecordError, match="removed or damaged"):
        kept_adapter.verify(tmp_path, 10)


def test_a_finished_adapter_is_compared_with_its_record(tmp_path):
    kept_adapter.replace(tmp_path, 10, write(1.0), checkpoint=0)
    old, record = (
        Record(**EMPTY),
        Record(**EMPTY, adapter=kept_adapter.verify(tmp_path, 10)),
    )
    kept_adapter.check(tmp_path / "adapter", record)
    kept_adapter.check(tmp_path / "adapter", old)
    save_file({"c": torch.tensor([2.0])}, tmp_path / "adapter/model.safetensors")
    kept_adapter.check(tmp_path / "adapter", old)
    with pytest.raises(RecordError, match="altered since"):
        kept_adapter.check(tmp_path / "adapter", record)
    shutil.rmtree(tmp_path / "adapter")
    with pytest.raises(RecordError, match="no adapter"):
        kept_adapter.check(tmp_path / "adapter", record)
    with pytest.raises(RecordError, match="no adapter"):
        kept_adapter.check(tmp_path / "adapter", old)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, broken):
    kept_adapter.replace(tmp_path, 10, write(broken), checkpoint=0)
    with pytest.raises(RecordError, match="non-finite values\n  - model.safetensors: c"):
        kept_adapter.check(tmp_path / "adapter", Record(**EMPTY))
