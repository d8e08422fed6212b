"""Every file that a task reads is one of its inputs, and no other."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from experiments.results import inputs


def image(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(path)


def text(path: Path, content: str = "rows") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def classes(root):
    for number, name in enumerate(("cat/1.png", "cat/deep/2.png", "dog/1.png")):
        image(root / "train" / name, 50 * number)
        image(root / "test" / name, 50 * number + 1)
    text(root / "train/cat/notes.txt")


def subject(root):
    for number in range(3):
        image(root / f"dog/{number:02d}.jpg", 60 * number)
    image(root / "cat/00.jpg", 9)
    listing = "dog,dog\ncat,cat\nObject Prompts\n'a {0} {1}'.format\nLive Subject\n'{0} {1}'.format"
    text(root / "prompts_and_classes.txt", listing)


def files(*names):
    return lambda root: [text(root / name, f"rows of {name}") for name in names]


def moved(root):
    (root / "train/cat/1.png").rename(root / "train/dog/9.png")


IMAGES = ["model=vit_tiny", "task=cifar10", "method=fourierft"]
DOG = ["model=sd_tiny", "task=dreambooth", "method=fourierft", "task.subject=dog"]
SST2 = ["model=minilm", "task=sst2", "method=fourierft"]
E2E = ["model=gpt2_tiny", "task=e2e", "method=fourierft"]
ALPACA = ["model=llama2_7b", "task=alpaca", "method=fourierft"]
PARQUET = files("train.parquet", "validation.parquet", "test.parquet")

CASES = {
    "glue": (SST2, PARQUET, {"train.parquet": "train data", "test.parquet": None}),
    "glue, shards in its subfolder": (
        SST2,
        files("sst2/train-0.parquet", "sst2/train-1.parquet", "sst2/validation-0.parquet"),
        {
            "sst2/train-0.parquet": "train data",
            "sst2/train-1.parquet": "train data",
            "sst2/train-2.parquet": "train data",
            "sst2/validation-0.parquet": "validation data",
        },
    ),
    "e2e": (E2E, PARQUET, {"train.parquet": "train data", "test.parquet": "test data"}),
    "e2e, csv": (
        E2E,
        files("trainset.csv", "devset.csv", "testset_w_refs.csv", "testset.csv"),
        {"devset.csv": "validation data", "testset.csv": None},
    ),
    "alpaca": (
        ALPACA,
        files("alpaca.json", "notes.txt"),
        {"alpaca.json": "data", "notes.txt": None},
    ),
    "images, parquet": (
        IMAGES,
        files("data/train-0.parquet", "data/test-0.parquet"),
        {"data/train-0.parquet": "train data", "data/test-0.parquet": "test data"},
    ),
    "images, folders": (
        IMAGES,
        classes,
        {
            "train/cat/1.png": "train data",
            "train/cat/deep/2.png": "train data",
            "test/dog/1.png": "test data",
            "train/dog/new.png": "train data",
            "train/cat/notes.txt": None,
            "train/cat/.DS_Store": None,
            moved: "train data",
        },
    ),
    "dreambooth": (
        DOG,
        subject,
        {
            "dog/01.jpg": "photos of dog",
            "dog/09.jpg": "photos of dog",
            "prompts_and_classes.txt": "prompts and classes",
            "cat/00.jpg": None,
        },
    ),
}


def changed(root: Path, change) -> None:
    if callable(change):
        change(root)
    elif change.endswith((".png", ".jpg")):
        image(root / change, 200)
    else:
        path = root / change
        text(path, f"{path.read_text()} " if path.exists() else "new")


@pytest.mark.parametrize(
    ("case", "change"), [(case, change) for case in CASES for change in CASES[case][2]]
)
def test_files_and_what_they_are(case, change, compose, tmp_path):
    asked, make, names = CASES[case]
    make(tmp_path / "data")
    config = compose([*asked, f"task.path={tmp_path}/data"])
    before = inputs.describe(config)
    assert {name for name in names.values() if name} <= set(before)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    config.task.path = str(tmp_path / "copy")
    assert not inputs.find_differences(before, inputs.describe(config))
    changed(tmp_path / "copy", change)
    differing = inputs.find_differences(before, inputs.describe(config))
    assert [line.partition(":")[0] for line in differing] == [names[change]] * bool(names[change])


def test_class_images_and_the_feature_extractor(compose, tmp_path):
    subject(tmp_path / "data")
    image(tmp_path / "others/1.png", 7)
    text(tmp_path / "inception.safetensors", "weights")
    config = compose([*DOG, f"task.path={tmp_path}/data", f"task.class_path={tmp_path}/others"])
    config.task.extractor = str(tmp_path / "inception.safetensors")
    before = inputs.describe(config)
    image(tmp_path / "others/1.png", 8)
    text(tmp_path / "inception.safetensors", "other")
    differing = inputs.find_differences(before, inputs.describe(config))
    assert [line.partition(":")[0] for line in differing] == [
        "class images of dog",
        "feature extractor",
    ]
