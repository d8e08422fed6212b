"""The benchmark of whole training runs measures steps, and tells waiting from computing."""

import time

import pytest
from pyarrow import parquet

from benchmarks import families
from experiments.tasks import image_transforms

pytestmark = pytest.mark.slow
SMALL = ("model.sizes.num_hidden_layers=2", "model.sizes.hidden_size=96")


@pytest.fixture(scope="module")
def photographs(data_folder, tmp_path_factory):
    """The first 200 and 20 images of CIFAR-10."""
    folder = tmp_path_factory.mktemp("cifar10")
    for split, rows in (("train", 200), ("test", 20)):
        table = parquet.read_table(data_folder / f"cifar10/{split}.parquet")
        parquet.write_table(table.slice(0, rows), folder / f"{split}.parquet")
    return folder


def measure(photographs, **changes):
    settings = {"batch_size": 16, "steps": 3, "overrides": SMALL}
    return families.measure("images", photographs, **settings | changes)


def test_steps_are_measured(photographs):
    found = measure(photographs)
    assert 0 < found["waiting"] < found["overhead"] < 0.9
    assert found["samples_per_s"] == pytest.approx(16_000 / found["step_ms"], rel=1)


def test_slow_rows_show_as_waiting(photographs, monkeypatch):
    whole = image_transforms.make_training_view

    def slow(*args):
        time.sleep(0.04)
        return whole(*args)

    monkeypatch.setattr(image_transforms, "make_training_view", slow)
    found = measure(photographs, method="lora", overrides=(*SMALL, "train.workers=0"))
    # The rest of a step takes longer on a busy machine, the rows do not get faster.
    assert found["waiting"] > 0.15 and found["step_ms"] > 16 * 40


def test_accumulated_batches_are_one_step(photographs):
    found = measure(photographs, method="full", overrides=("train.accumulation=4", *SMALL))
    assert found["overhead"] < 0.9 and found["samples_per_s"] > 0


def test_cases_are_rehearsals_of_every_family():
    assert set(families.CASES) == {"glue", "e2e", "images", "instruction", "dreambooth"}
