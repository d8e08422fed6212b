"""task=pictures: the user's own images, by folders of classes or parquet, to predicted names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.commands import predict
from experiments.errors import DataError, DataMissing, UserError
from experiments.models.vision import ImageFormat
from experiments.run.main import run
from experiments.tasks import Pictures, held_out

FORMAT = ImageFormat(side=16, mean=[0.5] * 3, std=[0.5] * 3)
COLOURS = {"blue": (20, 20, 220), "red": (220, 20, 20)}


def fill(folder, count=10):
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((16, 16, 3), colour, np.uint8) + np.uint8(number)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def pictures(path, **changes):
    fields = {"name": "pictures", "data": None, "metrics": ["accuracy"], "test_share": 0.2}
    task = Pictures(path=path and str(path), **fields | {"validation_share": 0.25} | changes)
    task.resolve()
    return task


def test_folders_by_class_are_held_out_by_class(tmp_path, monkeypatch):
    task = pictures(fill(tmp_path / "shapes"))
    assert (task.class_names, task.head.names) == (["blue", "red"], ("blue", "red"))
    data = task.load(FORMAT, task.locate())
    labels = {
        split: [row["labels"] for row in part] for split, part in data.evaluations.items()
    } | {"train": [data.train[row]["labels"] for row in range(len(data.train))]}
    assert {split: (len(found), sum(found)) for split, found in labels.items()} == {
        "train": (12, 6),
        "validation": (4, 2),
        "test": (4, 2),
    }
    named = {split: text.splitlines() for split, text in data.held_out["rows"].items()}
    assert all((tmp_path / "shapes" / name).is_file() for name in sum(named.values(), []))
    found = [int(name.startswith("red")) for name in named["test"]]
    assert found == labels["test"]
    assert data.held_out["share"] == 0.4, "a quarter of four fifths, and a fifth"
    assert sorted(task.inputs()) == ["train data"]
    monkeypatch.setattr(held_out, "LONGEST", 20)
    named = task.load(FORMAT, task.locate()).held_out["rows"]
    assert all(text.startswith("4 rows, sha256 ") for text in named.values())


def test_splits_that_are_there_are_taken(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", 3)
    task = pictures(tmp_path)
    assert task.test_share is None and task.validation_share == 0.25
    data = task.load(FORMAT, task.locate())
    assert (len(data.train), len(data.evaluations["test"])) == (15, 6)
    assert list(data.held_out["rows"]) == ["validation"]
    gone = Pictures(
        name="pictures", data=None, metrics=["accuracy"], test_share=0.2, validation_share=0.25
    )
    gone.resolve_as(task)
    gone.path = task.path
    assert gone == task, "as a record has it, without its data"


@pytest.mark.parametrize("named", [True, False])
def test_parquet(named, tmp_path):
    import datasets

    fill(tmp_path / "images", 4)
    files = sorted((tmp_path / "images").rglob("*.png"))
    labels = [sorted(COLOURS).index(file.parent.name) for file in files]
    kind = datasets.ClassLabel(names=sorted(COLOURS)) if named else datasets.Value("string")
    rows = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
            "label": labels if named else [file.parent.name for file in files],
        },
        features=datasets.Features({"image": datasets.Image(), "label": kind}),
    )
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data/train.parquet")
    task = pictures(tmp_path / "data")
    assert (task.class_names, task.label_column) == (["blue", "red"], "label")
    assert len(task.load(FORMAT, None).evaluations["test"]) == 2


def test_mistakes(tmp_path):
    for path in (None, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no such folder"):
            pictures(path)
    with pytest.raises(DataError, match="no such folder") as caught:
        pictures(Path(__file__))
    assert not isinstance(caught.value, DataMissing), "a finished run on other data is not shown"
    with pytest.raises(UserError, match="the folder holds: nothing"):
        pictures(tmp_path)
    (tmp_path / "only").mkdir()
    with pytest.raises(UserError, match="found 1 classes, expected two"):
        pictures(tmp_path)
    (tmp_path / "can\x92t").mkdir()
    with pytest.raises(UserError, match=r"classes with control characters: 'can\\x92t'"):
        pictures(tmp_path)
    with pytest.raises(UserError, match="no class has two rows left"):
        pictures(fill(tmp_path / "few", 2)).load(FORMAT, None)


def test_a_trained_model_names_pictures(tmp_path, compose, capsys):
    fill(tmp_path / "shapes")
    given = ["model=vit_tiny", "task=pictures", f"task.path={tmp_path}/shapes"]
    given += ["train.device=cpu", "train.max_steps=1", "train.batch_size=4"]
    record = run(compose([*given, f"output={tmp_path}/runs"]))
    place = next((tmp_path / "runs").rglob("metrics.json")).parent
    assert record.config["task"]["class_names"] == ["blue", "red"] and "data=shapes" in str(place)
    capsys.readouterr()
    assert predict.main([str(place), "--input", str(tmp_path / "shapes/red")]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "file,prediction,probability blue,probability red" and len(lines) == 10
    assert json.loads((place / "metrics.json").read_text())["environment"]["held_out"]["share"]
