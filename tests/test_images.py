"""Image classification: splits, layouts, views, and what is said of data that do not fit."""

import io
import json
import math

import numpy as np
import pyarrow
import pytest
import yaml
from PIL import Image
from pyarrow import parquet

from experiments.config.compose import CONF, compose_config, register
from experiments.errors import DataError
from experiments.models.vision import ImageFormat
from experiments.report.comparison import reference
from experiments.tasks import Images, image_transforms, image_views, images
from experiments.tasks.image_folder import Labelled

PIXELS = ImageFormat(side=32, mean=[0.5] * 3, std=[0.5] * 3)
TABLE8 = reference.load("table5")["datasets"]
CIFAR10 = ["model=vit_tiny", "task=cifar10", "method=full", "source=none"]


def task(**changes):
    settings = dict(
        name="cifar10",
        repo="nowhere/train",
        classes=3,
        metrics=["accuracy"],
        test_share=None,
        validation_share=0.25,
    )
    return Images(**(settings | changes))


def load(part):
    return part.load(PIXELS, part.locate(offline=True))


def encoded(number, kind="PNG", mode="RGB"):
    """A picture whose brightness is its number."""
    file = io.BytesIO()
    Image.new("RGB", (9, 8), (number % 256,) * 3).convert(mode).save(file, kind)
    return file.getvalue()


def table(labels, column="label", names=None, image="image", **more):
    contents = [
        {"bytes": encoded(number), "path": f"{number}.png"} for number in range(len(labels))
    ]
    built = pyarrow.table({image: contents, column: labels} | more)
    if names is not None:
        features = {image: {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
        noted = json.dumps({"info": {"features": features}}).encode()
        built = built.replace_schema_metadata({b"huggingface": noted})
    return built


@pytest.fixture
def parquets(tmp_path):
    """Function: tables by split -> a task on them."""

    def write(changes=None, **tables):
        for split, one in tables.items():
            parquet.write_table(one, tmp_path / f"{split}.parquet")
        return task(path=str(tmp_path), **(changes or {}))

    return write


@pytest.fixture
def folders(tmp_path):
    """Function: {path of a class: number of images} -> a task on them."""

    def write(layout, **changes):
        for place, count in layout.items():
            (tmp_path / place).mkdir(parents=True)
            for number in range(count):
                (tmp_path / place / f"{number:02}.png").write_bytes(encoded(number * 10))
        return task(path=str(tmp_path), **changes)

    return write


def problems(part):
    with pytest.raises(DataError) as caught:
        load(part)
    return str(caught.value)


@pytest.mark.parametrize("name", TABLE8)
def test_splits_have_the_sizes_of_table_8(name):
    register()
    part = compose_config([f"task={name}", "source=none", "model=vit_base", "method=full"]).task
    sizes = TABLE8[name]
    total = sizes["train"] + sizes["validation"] + sizes["test"]
    rows, draw, found = np.arange(total), np.random.default_rng(0), {}
    if part.test_share is None:  # a split of its own
        rows, found["test"] = rows[: total - sizes["test"]], sizes["test"]
    else:
        rows, test = images.hold_out(rows, part.test_share, draw)
        found["test"] = len(test)
    if part.validation_share is None:
        assert "validation" in sizes["given"]
    else:
        rows, validation = images.hold_out(rows, part.validation_share, draw)
        found |= {"validation": len(validation), "train": len(rows)}
    assert found == {split: sizes[split] for split in found}
    assert part.classes == sizes["classes"]


def test_holding_out():
    rows = np.arange(50, 150)
    kept, out = images.hold_out(rows, 0.1, np.random.default_rng(0))
    assert len(out) == 10 and sorted([*kept, *out]) == list(rows)
    assert list(out) == sorted(out) and list(kept) == sorted(kept)
    assert not np.array_equal(out, images.hold_out(rows, 0.1, np.random.default_rng(1))[1])
    for count in range(1, 400):
        assert len(
            images.hold_out(np.arange(count), 0.1, np.random.default_rng(0))[1]
        ) == math.ceil(count / 10)


@pytest.fixture(scope="module")
def real(data_folder, compose):
    """CIFAR-10's cut of 10,000 and 2,000 images, loaded as a run does."""
    part = compose([*CIFAR10, "train.epochs=1", "train.batch_size=8", "train.learning_rate=1"]).task
    part.path = str(data_folder / "cifar10")
    return part, load(part)


def test_real_splits(real):
    _, data = real
    assert len(data.train) == 9000
    assert {split: len(rows) for split, rows in data.evaluations.items()} == {
        "validation": 1000,
        "test": 2000,
    }
    assert next(iter(data.evaluations)) == "validation", "by the first one an epoch is chosen"
    held_out = set(data.evaluations["validation"].rows)
    assert not held_out & set(data.train.rows)
    assert held_out | set(data.train.rows) == set(range(10000))


def test_real_views_and_labels(real, data_folder):
    part, data = real
    rows = parquet.read_table(data_folder / "cifar10/test.parquet").slice(0, 3).to_pylist()
    for row, view in zip(rows, data.evaluations["test"], strict=False):
        assert view["labels"] == row["label"]
        shown = Image.open(io.BytesIO(row["img"]["bytes"]))
        assert np.array_equal(view["pixel_values"], np.asarray(shown.convert("RGB")))
    batch = data.collate([data.train[key] for key in (5, 6)])
    assert batch["pixel_values"].shape == (2, 32, 32, 3)
    assert str(batch["pixel_values"].dtype) == "torch.uint8"
    counts = np.bincount([data.train.source.labels[row] for row in data.train.rows])
    assert counts.min() > 850 and counts.sum() == 9000


def test_every_epoch_shows_another_view_of_the_same_image(real):
    _, data = real
    first, again, later = (data.train[key] for key in (7, 7, 7 + 3 * 9000))
    assert np.array_equal(first["pixel_values"], again["pixel_values"])
    assert not np.array_equal(first["pixel_values"], later["pixel_values"])
    assert first["labels"] == later["labels"]
    test = data.evaluations["test"]
    assert np.array_equal(test[3]["pixel_values"], test[3]["pixel_values"])


def test_keys_of_different_seeds_and_epochs_differ():
    from experiments.training.data_order import DataOrder

    seen, rows = set(), 11
    for seed in (0, 1, 2**32 - 1):
        order = DataOrder(rows, seed, None, 4, augmented=True)
        for epoch in range(3):
            order.set_epoch(epoch)
            keys = list(order)
            assert sorted(key % rows for key in keys) == list(range(rows))
            assert not seen & set(keys)
            seen |= set(keys)


def test_the_split_is_that_of_every_run(real, data_folder):
    part, data = real
    assert np.array_equal(load(part).evaluations["validation"].rows[:4], [1, 27, 36, 38])
    few = task(path=part.path, classes=10, validation_share=0.1, train_rows=64, eval_rows=20)
    small = load(few)
    assert len(small.train) == 64 and set(small.train.rows) <= set(data.train.rows)
    assert {split: len(rows) for split, rows in small.evaluations.items()} == {
        "validation": 20,
        "test": 20,
    }
    assert np.array_equal(
        small.evaluations["validation"].rows, data.evaluations["validation"].rows[:20]
    )
    assert small.fingerprint == data.fingerprint


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_one_line(workers):
    """Its markers are in order, its tables are not: only decoding finds that out."""
    import torch

    content = encoded(0, "JPEG")
    table = content.index(b"\xff\xc4") + 8
    content = content[:table] + bytes(200) + content[table + 200 :]
    assert image_transforms.find_fault(content) is None
    source = Labelled(contents=[content], labels=[0], places=["train.parquet row 7"])
    views = image_views.Views(source, np.arange(1), 16, augmented=False)
    with pytest.raises(DataError) as caught:
        next(iter(torch.utils.data.DataLoader(views, num_workers=workers)))
    assert str(caught.value).startswith("train.parquet row 7: cannot be decoded (")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_workers_do_not_change_what_is_shown(real):
    import torch

    from experiments.training.data_order import DataOrder

    _, data = real
    order = DataOrder(len(data.train), 3, None, 16, augmented=True)
    batches = []
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(
            data.train, 16, sampler=order, collate_fn=data.collate, num_workers=workers
        )
        batches.append([batch for batch, _ in zip(loader, range(6), strict=False)])
    for alone, helped in zip(*batches, strict=True):
        assert torch.equal(alone["pixel_values"], helped["pixel_values"])
        assert torch.equal(alone["labels"], helped["labels"])


def test_folders_by_split_and_class(folders):
    part = folders(
        {f"{split}/{name}": count for split, count in (("train", 8), ("test", 2)) for name in "cab"}
    )
    data = load(part)
    assert (len(data.train), len(data.evaluations["validation"])) == (18, 6)
    test = data.evaluations["test"]
    assert [row["labels"] for row in test] == [0, 1, 2, 0, 1, 2], "first rows are of every class"
    assert test[3]["pixel_values"].mean() == 10
    assert data.train.source.names == ["a", "b", "c"]


def test_one_folder_is_cut_twice(folders):
    part = folders({name: 10 for name in "abc"}, test_share=0.2, validation_share=0.1)
    data = load(part)
    sizes = [len(rows) for rows in (data.train, *data.evaluations.values())]
    assert sizes == [21, 3, 6]
    parts = [set(rows.rows) for rows in (data.train, *data.evaluations.values())]
    assert set.union(*parts) == set(range(30))


def test_given_validation_split(folders):
    layout = {f"{split}/{name}": 2 for split in ("train", "val", "test") for name in "abc"}
    data = load(folders(layout, validation_share=None))
    assert len(data.train) == 6 and len(data.evaluations["validation"]) == 6


def test_a_given_validation_split_that_the_rule_does_not_use(folders, monkeypatch):
    layout = {f"{split}/{name}": 4 for split in ("train", "validation", "test") for name in "abc"}
    said = []
    monkeypatch.setattr(images.log, "info", said.append)
    data = load(folders(layout))
    assert said == ["the validation split there is not used: task.validation_share draws one"]
    assert len(data.train) == 9 and len(data.evaluations["validation"]) == 3


def test_labels_as_names(parquets):
    part = parquets(train=table(["b", "a", "c", "b"]), test=table(["c", "a", "b"]))
    data = load(part)
    assert [row["labels"] for row in data.evaluations["test"]] == [2, 0, 1]


def test_the_label_column_is_the_one_with_as_many_classes(parquets):
    """Hub data hold several: fine and coarse classes, species and breed."""
    train = table([0, 1, 2], "breed", ["a", "b", "c"], cat=[0, 1, 0], label_cat_dog=[7, 7, 7])
    assert load(parquets(train=train, test=train)).train.source.labels == [0, 1, 2]


def test_the_label_column_can_be_named(parquets):
    one = table([0, 1, 2], "breed", image="photo", label=[0, 0, 0])
    part = parquets({"label_column": "breed"}, train=one, test=one)
    assert load(part).train.source.labels == [0, 1, 2]
    part.label_column = "race"
    assert "task.label_column=race: no such column (columns: photo, breed, label)" in problems(part)


def test_plain_bytes_are_images_too(parquets):
    one = pyarrow.table({"picture": [encoded(3), encoded(4), encoded(5)], "label": [0, 1, 2]})
    data = load(parquets(train=one, test=one))
    assert data.evaluations["test"][2]["pixel_values"].mean() == 5


def test_several_files_of_a_split_and_the_hubs_data_folder(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        parquet.write_table(table([0, 1, 2]), tmp_path / "data" / f"{name}-0123.parquet")
    data = load(task(path=str(tmp_path)))
    assert len(data.train) + len(data.evaluations["validation"]) == 6


def test_every_file_of_a_split_has_labels_of_one_kind(parquets, tmp_path):
    part = parquets(test=table([0, 1, 2]))
    for number, labels in enumerate(([0, 1, 2], ["a", "b", "c"])):
        parquet.write_table(table(labels), tmp_path / f"train-{number}.parquet")
    assert "train-1.parquet: class names here and class numbers in other files" in problems(part)


def test_all_splits_have_labels_of_one_kind(parquets):
    part = parquets(train=table([0, 1, 2] * 2), test=table(["a", "b", "c"]))
    assert "class names in one split and class numbers in another" in problems(part)


@pytest.mark.parametrize(
    "note", [b"not JSON", b"[]", b'{"info": null}', b'{"info": {"features": 1}}']
)
def test_a_note_of_features_that_is_none_is_passed_over(parquets, note):
    noted = table([0, 1, 2] * 2).replace_schema_metadata({b"huggingface": note})
    assert len(load(parquets(train=noted, test=noted)).evaluations["test"]) == 6


def test_images_below_a_class_are_read_whatever_their_endings(tmp_path, caplog):
    """As torchvision's ImageFolder walks; .jfif, .avif, capitals, and names that lie."""
    kinds = {
        "0.png": "PNG",
        "1.PNG": "PNG",
        "more/2.jfif": "JPEG",
        "more/deep/3.JPE": "JPEG",
        "more/4.avif": "AVIF",
        "5.heic": "JPEG",
        "6": "WEBP",
        "7.tga": "TGA",
        "8.jp2": "JPEG2000",
    }
    for split in ("train", "test"):
        for kind in ("a", "b", "c"):
            for name, format_ in kinds.items():
                path = tmp_path / split / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(7, format_))
    part = task(path=str(tmp_path), validation_share=0.5)
    assert len(load(part).evaluations["test"]) == 3 * len(kinds)
    assert not [line for line in caplog.messages if "not used" in line]


def test_files_that_are_no_images_are_counted_and_hidden_ones_ignored(folders, tmp_path, caplog):
    part = folders(
        {"train/a": 4, "train/b": 4, "train/c": 4, "test/a": 1, "test/b": 1, "test/c": 1}
    )
    (tmp_path / "train/a/more").mkdir()
    unused = ["a/notes.txt", "a/more/x.HEIC", "b/y.heic", "c/LICENSE"]
    for name in [*unused, "a/._0.png", "a/.DS_Store", "b/.hidden.jpg"]:
        (tmp_path / "train" / name).write_bytes(b"\0\5\26\7 not an image")
    (tmp_path / "train/.git").mkdir()
    (tmp_path / "train/a/.thumbs").mkdir()
    (tmp_path / "train/a/.thumbs/0.png").write_bytes(encoded(1))
    assert len(load(part).train) == 9
    (said,) = [line for line in caplog.messages if "not used" in line]
    assert said == (
        f"{tmp_path / 'train'}: 4 files are not used, PIL reads no image there: "
        ".heic 2, .txt 1, no ending 1"
    )


def test_links_to_folders_are_followed_and_not_in_circles(folders, tmp_path):
    part = folders({"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1, "test/c": 1})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/0.png").write_bytes(encoded(3))
    (tmp_path / "train/c").mkdir()
    (tmp_path / "train/c/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "train/c")
    data = load(part)
    assert len(data.train) + len(data.evaluations["validation"]) == 9


def test_a_link_that_leads_nowhere_is_named(folders, tmp_path):
    part = folders(
        {"train/a": 4, "train/b": 4, "train/c": 4, "test/a": 1, "test/b": 1, "test/c": 1}
    )
    (tmp_path / "train/a/9.png").symlink_to(tmp_path / "nowhere.png")
    assert "train/a/9.png: cannot be read (No such file or directory)" in problems(part)


def test_all_faults_are_said_at_once(parquets):
    rows = table([0, 1, 2, 3, 9])
    contents = rows.column("image").to_pylist()
    contents[1]["bytes"] = contents[1]["bytes"][:40]
    contents[3]["bytes"] = b"<html>"
    train = rows.set_column(0, "image", pyarrow.array(contents))
    contents = table([0, 1, -1]).column("image").to_pylist()
    contents[2]["bytes"] = contents[2]["bytes"][:-20]
    test = table([0, 1, -1]).set_column(0, "image", pyarrow.array(contents))
    said = problems(parquets(train=train, test=test))
    for words in (
        "train: labels from 0 to 9, allowed 0 to 2",
        "test: labels from -1 to 1, allowed 0 to 2 (hidden labels cannot be scored)",
        "train: unreadable images, 2 (no image): train.parquet row 1, train.parquet row 3",
        "test: unreadable images, 1 (",
    ):
        assert words in said, said


def test_a_long_list_of_unreadable_files_is_cut(folders, tmp_path):
    part = folders({f"{split}/{name}": 4 for split in ("train", "test") for name in "abc"})
    for path in sorted((tmp_path / "train").glob("*/*.png"))[:7]:
        path.write_bytes(b"")
    said = problems(part)
    assert (
        "train: unreadable images, 7 (no image)" in said
        and "and 2 more" in said
        and "00.png" in said
    )


def test_empty_classes(folders, parquets):
    part = folders({"train/a": 2, "train/b": 0, "train/c": 1} | {f"test/{x}": 1 for x in "abc"})
    assert "train/b: no images" in problems(part)


def test_a_class_without_a_training_image(parquets):
    names = ["a", "b", "c"]
    said = problems(parquets(train=table([0, 2], names=names), test=table([1], names=names)))
    assert "train has no image of these classes: b" in said


def test_class_names_that_differ(folders, tmp_path):
    part = folders({f"train/{x}": 1 for x in "abc"} | {f"test/{x}": 1 for x in "abd"})
    said = problems(part)
    assert "classes in test, not in train: d" in said and "classes in train, not in test: c" in said


def test_class_names_in_another_order(parquets):
    train, test = table([0, 1, 2], names=["a", "b", "c"]), table([0], names=["b", "a", "c"])
    assert "test numbers its classes in another order" in problems(parquets(train=train, test=test))


def test_another_number_of_classes(folders):
    part = folders({f"{split}/{x}": 1 for split in ("train", "test") for x in "abcd"})
    assert "train has 4 classes (a, b, c, d), task.classes=3" in problems(part)


def test_columns_that_do_not_fit(parquets):
    train = pyarrow.table({"text": ["x"], "label": [0]})
    said = problems(parquets(train=train, test=table([0.5, 1.0])))
    assert "train.parquet: no image column (columns: text, label)" in said
    assert "test.parquet: column 'label' holds double" in said
    two = table([0], other=[encoded(1)])
    assert "several columns of images, image, other" in problems(parquets(train=two, test=two))
    none = table([0], "kind")
    assert "no label column; task.label_column=NAME says which" in problems(
        parquets(train=none, test=none)
    )


def test_rows_without_bytes(parquets):
    one = pyarrow.table({"image": [{"bytes": None, "path": "a.png"}], "label": [0]})
    typed = one.cast(table([0]).schema)
    assert "1 rows without image bytes" in problems(parquets(train=typed, test=typed))


def test_splits_that_are_not_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError) as caught:
        task(path=str(tmp_path)).locate()
    said = str(caught.value)
    assert "no train*.parquet" in said and "notes.txt" in said
    assert "no test*.parquet" in said and "task.test_share=0.1" in said


def test_two_test_splits_to_choose_from(folders):
    part = folders({f"{x}/a": 1 for x in ("train", "test")}, test_share=0.2)
    with pytest.raises(DataError, match="there is a test split, and task.test_share=0.2"):
        part.locate()


def test_settings_that_cannot_be():
    wrong = task(classes=1, test_share=1.0, validation_share=0.0, metrics=["pearson"])
    said = "\n".join(wrong.problems())
    for words in ("task.classes=1", "test_share=1.0", "validation_share=0.0", "metrics=pearson"):
        assert words in said


def test_text_models_refuse_images_and_the_other_way_round(compose):
    from experiments.errors import ConfigError

    for model, name in (("roberta_base", "cifar10"), ("vit_base", "cola")):
        numbers = ["train.epochs=1", "train.batch_size=8", "train.learning_rate=1"]
        with pytest.raises(ConfigError, match=f"task={name} needs a .* head"):
            compose([f"model={model}", f"task={name}", "method=full", "source=none", *numbers])


def test_every_data_set_of_the_table_is_in_conf():
    assert list(TABLE8) == reference.load("table5")["order"]
    for name, said in TABLE8.items():
        part = yaml.safe_load((CONF / f"task/{name}.yaml").read_text())
        found = [part["repo"], *([part["test_repo"]] if "test_repo" in part else [])]
        assert found == said["repositories"]
