"""Stored predictions: written whole, read back, cut, and named when damaged."""

import numpy as np
import pytest

from experiments.errors import RecordError
from experiments.metrics.selection import Evaluation
from experiments.results import predictions


def entry(step, rows=5):
    draw = np.random.default_rng(step)
    return Evaluation(
        step=step,
        epoch=step / 3,
        predictions=draw.standard_normal((rows, 2)).astype(np.float32),
        references=draw.integers(0, 2, rows),
    )


def files(folder):
    return sorted(path.name for path in (folder / "predictions").iterdir())


def test_round_trip_in_the_order_of_training(tmp_path):
    for step in (1000, 9, 20):
        predictions.save(tmp_path, "validation", entry(step))
        predictions.save(tmp_path, "validation_mismatched", entry(step + 1))
    found = predictions.load(tmp_path, "validation")
    assert [item.step for item in found] == [9, 20, 1000]
    for item in found:
        assert item.epoch == item.step / 3
        np.testing.assert_array_equal(item.predictions, entry(item.step).predictions)
        np.testing.assert_array_equal(item.references, entry(item.step).references)
        assert item.predictions.dtype == np.float32


def test_store_leaves_nothing_but_the_file(tmp_path):
    predictions.save(tmp_path, "validation", entry(7))
    assert files(tmp_path) == ["validation-0000007.npz"]


def test_store_again_replaces(tmp_path):
    predictions.save(tmp_path, "validation", entry(7))
    predictions.save(tmp_path, "validation", entry(7, rows=9))
    (found,) = predictions.load(tmp_path, "validation")
    assert len(found.references) == 9


def test_interrupted_store_keeps_the_old_file(tmp_path, monkeypatch):
    predictions.save(tmp_path, "validation", entry(7))

    def half(file, **arrays):
        file.write(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions.np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        predictions.save(tmp_path, "validation", entry(7, rows=9))
    (found,) = predictions.load(tmp_path, "validation")
    assert len(found.references) == 5


def test_cut_drops_what_lies_behind(tmp_path):
    for step in (10, 20, 30):
        predictions.save(tmp_path, "validation", entry(step))
        predictions.save(tmp_path, "validation_mismatched", entry(step))
    predictions.delete_after(tmp_path, 20)
    assert files(tmp_path) == [
        "validation-0000010.npz",
        "validation-0000020.npz",
        "validation_mismatched-0000010.npz",
        "validation_mismatched-0000020.npz",
    ]
    predictions.delete_after(tmp_path, 0)
    assert files(tmp_path) == []


def test_nothing_stored_yet(tmp_path):
    predictions.delete_after(tmp_path, 0)
    assert predictions.load(tmp_path, "validation") == []


@pytest.mark.parametrize("kept", [0, 10, 200, -30], ids=["empty", "magic", "head", "no directory"])
def test_damaged_file_is_named(tmp_path, kept):
    for step in (1, 2):
        predictions.save(tmp_path, "validation", entry(step))
    path = tmp_path / "predictions" / "validation-0000002.npz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RecordError, match="validation-0000002.npz: damaged"):
        predictions.load(tmp_path, "validation")


def test_flipped_bytes_are_noticed(tmp_path):
    predictions.save(tmp_path, "validation", entry(1, rows=500))
    path = tmp_path / "predictions" / "validation-0000001.npz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RecordError, match="validation-0000001.npz: damaged"):
        predictions.load(tmp_path, "validation")


def test_missing_array_is_named(tmp_path):
    (tmp_path / "predictions").mkdir()
    np.savez(tmp_path / "predictions" / "validation-0000001.npz", epoch=1.0, step=1)
    with pytest.raises(RecordError, match="predictions"):
        predictions.load(tmp_path, "validation")


def test_pickled_arrays_are_refused(tmp_path):
    """Only numbers are read from a file that may come from elsewhere."""
    (tmp_path / "predictions").mkdir()
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(
        tmp_path / "predictions" / "validation-0000001.npz",
        epoch=1.0,
        step=1,
        predictions=objects,
        references=objects,
    )
    with pytest.raises(RecordError, match="damaged"):
        predictions.load(tmp_path, "validation")


def test_the_earliest_damaged_evaluation_is_found(tmp_path):
    for step in (9, 20, 1000):
        predictions.save(tmp_path, "validation", entry(step))
    assert predictions.find_first_damaged(tmp_path) is None
    for step, size in ((1000, 100), (20, 0)):
        path = tmp_path / f"predictions/validation-{step:07d}.npz"
        path.write_bytes(path.read_bytes()[:size])
        assert predictions.find_first_damaged(tmp_path) == path


def test_other_files_are_no_evaluations(tmp_path):
    predictions.save(tmp_path, "validation", entry(9))
    names = ["._validation-0000009.npz", "validation-old.npz"]
    for name in names:
        (tmp_path / "predictions" / name).write_bytes(b"")
    assert [item.step for item in predictions.load(tmp_path, "validation")] == [9]
    assert predictions.find_first_damaged(tmp_path) is None
    predictions.delete_after(tmp_path, 5)
    assert files(tmp_path) == names


def test_companions_of_other_systems_are_not_predictions(tmp_path):
    predictions.save(tmp_path, "validation", entry(7))
    (tmp_path / "predictions/._validation-0000007.npz").write_bytes(b"macOS")
    (tmp_path / "predictions/._validation-0000010.npz").write_bytes(b"macOS")
    history = [{"step": 7, "validation/accuracy": 0.5}]
    assert not list(predictions.find_differences(tmp_path, history))
