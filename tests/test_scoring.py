"""From stored predictions to the metrics of a record."""

import numpy as np
import pytest

from experiments.errors import RecordError
from experiments.metrics import selection
from experiments.metrics.selection import Evaluation, Select
from experiments.results import predictions
from experiments.tasks import Glue, Images, Task
from experiments.training.scoring import score

# Two labelled splits, and in the order of the alphabet the primary one would be the second.
SPLITS = ["validation_matched", "validation_almost"]


def task(splits=SPLITS, metrics=("accuracy", "f1")):
    return Glue(
        name="mnli",
        repo="nyu-mll/glue",
        subset="mnli",
        columns=["premise", "hypothesis"],
        labels=3,
        metrics=list(metrics),
        splits=list(splits),
        max_length=8,
    )


def entry(step, right, rows=20):
    """The first `right` rows are predicted as they are, the others wrong."""
    references = np.arange(rows) % 3
    classes = np.where(np.arange(rows) < right, references, (references + 1) % 3)
    return Evaluation(
        step=step, epoch=step / 10, predictions=np.eye(3)[classes], references=references
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three evaluations of both splits; their best steps differ."""
    monkeypatch.setattr(selection, "RESAMPLES", 20)
    for step, matched, almost in ((10, 12, 4), (20, 16, 8), (30, 14, 18)):
        predictions.save(tmp_path, SPLITS[0], entry(step, matched))
        predictions.save(tmp_path, SPLITS[1], entry(step, almost))
    return tmp_path


@pytest.mark.parametrize(("rule", "value"), [(Select.best, 0.8), (Select.last, 0.7)])
def test_primary_is_the_first_split_by_the_rule(folder, rule, value):
    found = score(folder, task(), rule)
    primary = found["primary"]
    assert primary["interval"] == found[rule.value]["interval"]
    assert {key: primary[key] for key in ("name", "split", "select", "value")} == {
        "name": "accuracy",
        "split": SPLITS[0],
        "select": rule.value,
        "value": value,
    }
    swapped = score(folder, task(SPLITS[::-1]), rule)["primary"]
    assert (swapped["split"], swapped["value"]) == (SPLITS[1], 0.9)


def test_every_metric_on_every_split_at_the_chosen_step(folder):
    found = score(folder, task(), Select.best)
    assert found["best"]["step"] == 20
    assert {split: scores["accuracy"] for split, scores in found["best"]["scores"].items()} == {
        SPLITS[0]: 0.8,
        SPLITS[1]: 0.4,  # at the primary split's step, not at its own best
    }
    assert found["last"]["scores"][SPLITS[1]]["accuracy"] == 0.9
    assert list(found["best"]["scores"]) == SPLITS
    assert all(set(scores) == {"accuracy", "f1"} for scores in found["best"]["scores"].values())


def test_heldout_is_of_the_primary_split(folder):
    entries = predictions.load(folder, SPLITS[0])
    expected = selection.select(entries, lambda scores, labels: (scores.argmax(1) == labels).mean())
    assert score(folder, task(), Select.best)["heldout"] == expected["heldout"]


def test_scoring_again_gives_the_same(folder):
    assert score(folder, task(), Select.best) == score(folder, task(), Select.best)


def test_no_predictions_of_the_primary_split(folder):
    with pytest.raises(RecordError, match="no predictions of validation_other"):
        score(folder, task(["validation_other", *SPLITS]), Select.best)


class Judged(Task):
    """A task whose answers another command grades."""

    @property
    def selects(self):
        return False


def test_a_run_without_any_score_has_no_primary(tmp_path):
    task = Judged(name="x", metrics=[])
    nothing = {"value": None, "interval": None}
    assert score(tmp_path, task, Select.last) == {
        "primary": None,
        "best": None,
        "last": {"epoch": None, "step": None, **nothing, "scores": {}},
        "heldout": None,
    }


def of_images():
    settings = {"test_share": None, "validation_share": 0.1, "metrics": ["accuracy"]}
    return Images(name="cifar10", repo="nowhere", classes=3, **settings)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The validation split is best at step 20, the test split at step 30."""
    monkeypatch.setattr(selection, "RESAMPLES", 20)
    for step, validation, test in ((10, 12, 14), (20, 16, 15), (30, 13, 19), (40, 11, 17)):
        predictions.save(tmp_path, "validation", entry(step, validation))
        predictions.save(tmp_path, "test", entry(step, test))
    return tmp_path


@pytest.mark.parametrize(("rule", "value"), [(Select.best, 0.75), (Select.last, 0.85)])
def test_a_split_of_its_own_chooses_the_epoch(images, rule, value):
    found = score(images, of_images(), rule)
    primary = found["primary"]
    assert (primary["split"], primary["select"], primary["value"]) == ("test", rule.value, value)
    assert primary["interval"] == found[rule.value]["interval"]
    assert primary["interval"][0] <= value <= primary["interval"][1]
    assert found["best"]["step"] == 20 and found["last"]["step"] == 40
    assert found["best"]["chosen_on"] == {"split": "validation", "value": 0.8}
    assert found["best"]["scores"] == {
        "test": {"accuracy": 0.75},
        "validation": {"accuracy": 0.8},
    }
    assert "chosen_on" not in found["last"]
    assert found["heldout"] is None, "best is held out already"


def test_the_first_of_equal_validation_epochs_counts(images):
    predictions.save(images, "validation", entry(40, 16))
    assert score(images, of_images(), Select.best)["best"]["step"] == 20


def test_a_diverged_validation_epoch_never_wins(images):
    broken = entry(20, 16)
    broken.predictions[3, 1] = np.nan
    predictions.save(images, "validation", broken)
    assert score(images, of_images(), Select.best)["best"]["step"] == 30


@pytest.mark.parametrize(("kind", "scored"), [("images", "validation"), ("folder", SPLITS[0])])
def test_where_every_evaluation_diverged_nothing_is_best(request, kind, scored):
    place = request.getfixturevalue(kind)
    for diverged in predictions.load(place, scored):
        diverged.predictions[0] = np.nan
        predictions.save(place, scored, diverged)
    found = score(place, of_images() if kind == "images" else task(), Select.best)
    assert found["best"] is None and found["heldout"] is None
    assert found["primary"]["value"] is None and found["primary"]["interval"] is None
    assert found["primary"]["select"] == "best" and found["primary"]["name"] == "accuracy"


def test_both_splits_are_needed_at_the_same_steps(images):
    for path in (images / "predictions").glob("validation-*30.npz"):
        path.unlink()
    with pytest.raises(RecordError, match=r"validation was evaluated at steps \[10, 20, 40\]"):
        score(images, of_images(), Select.best)
    for path in (images / "predictions").glob("validation-*.npz"):
        path.unlink()
    with pytest.raises(RecordError, match="no predictions of validation .the folder holds: test"):
        score(images, of_images(), Select.best)


def test_a_task_without_such_a_split_has_nothing_to_say_of_one(folder):
    found = score(folder, task(), Select.best)
    assert set(found["best"]) == {"epoch", "step", "value", "interval", "scores"}
    assert set(found["primary"]) == {"name", "split", "select", "value", "interval"}
