"""Tasks: the real GLUE data, made-up folders of every damaged kind, and the toy."""

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from experiments.errors import DataError, HubUnavailable
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.tasks import Glue, NoTask, Task, Toy

REAL = {  # name: columns, labels, training rows, validation rows
    "cola": (["sentence"], 2, 8551, 1043),
    "sst2": (["sentence"], 2, 67349, 872),
    "mrpc": (["sentence1", "sentence2"], 2, 3668, 408),
    "rte": (["sentence1", "sentence2"], 2, 2490, 277),
    "stsb": (["sentence1", "sentence2"], 1, 5749, 1500),
}
HIDDEN = -1


@pytest.fixture(scope="session")
def tokenizer():
    return make_byte_tokenizer(514)


def glue(name="rte", **changes):
    columns, labels, *_ = REAL.get(name, (["premise", "hypothesis"], 3))
    metrics = ["pearson", "spearman"] if labels == 1 else ["accuracy"]
    fields = {
        "repo": "nyu-mll/glue",
        "subset": name,
        "columns": columns,
        "labels": labels,
        "metrics": metrics,
        "splits": ["validation"],
        "max_length": 128,
    }
    return Glue(name=name, **fields | changes)


def real(data_folder, name, **changes):
    folder = data_folder / "glue" / name
    return glue(name, path=str(folder), **changes)


def rows(columns=("sentence1", "sentence2"), count=6, labels=2, label=None):
    """A table of made-up rows."""
    texts = {name: [f"{name} of row {row}" for row in range(count)] for name in columns}
    kind = pa.int64() if labels > 1 else pa.float32()
    given = (
        [row % labels if labels > 1 else row / 2 for row in range(count)]
        if label is None
        else label
    )
    return pa.table(texts | {"label": pa.array(given, kind)})


@pytest.fixture
def folder(tmp_path):
    """A whole data folder of rte, whose hidden test labels nobody can read."""
    parquet.write_table(rows(), tmp_path / "train.parquet")
    parquet.write_table(rows(count=4), tmp_path / "validation.parquet")
    (tmp_path / "test.parquet").write_bytes(b"never read")
    return tmp_path


def load(task, tokenizer):
    return task.load(tokenizer, task.locate())


def refused(task, tokenizer):
    with pytest.raises(DataError) as caught:
        load(task, tokenizer)
    return caught.value


@pytest.mark.parametrize("name", REAL)
def test_real_data(name, data_folder, tokenizer, compose):
    columns, labels, train, validation = REAL[name]
    task = real(data_folder, name, train_rows=300)
    shipped = compose([f"task={name}", "model=minilm", "method=fourierft"]).task
    assert (shipped.columns, shipped.labels) == (columns, labels)
    data = load(task, tokenizer)
    assert list(data.evaluations) == ["validation"]
    assert (len(data.train), len(data.evaluations["validation"])) == (300, validation)
    table = parquet.read_table(data_folder / "glue" / name / "validation.parquet")
    assert (
        parquet.ParquetFile(data_folder / "glue" / name / "train.parquet").metadata.num_rows
        == train
    )
    for position in (0, validation - 1):
        row, source = (
            data.evaluations["validation"][position],
            table.slice(position, 1).to_pylist()[0],
        )
        texts = [source[column] for column in columns]
        expected = tokenizer(*texts, truncation=True, max_length=128)["input_ids"]
        assert row["input_ids"] == expected and row["labels"] == source["label"]
        assert type(row["labels"]) is (float if labels == 1 else int)
    found = set(data.evaluations["validation"]["labels"])
    assert found == set(range(labels)) if labels > 1 else 0 <= min(found) < max(found) <= 5


def test_rows_are_cut_to_the_task_and_to_the_model(folder, tokenizer):
    def longest(max_length, tokenizer):
        data = load(glue(path=str(folder), max_length=max_length), tokenizer)
        return max(len(row["input_ids"]) for row in data.train)

    assert longest(512, tokenizer) == 2 * len("sentence1 of row 0") + 4
    assert longest(20, tokenizer) == 20
    assert longest(512, make_byte_tokenizer(18)) == 16


def test_batches_are_as_long_as_their_longest_row(tokenizer, tmp_path):
    texts = ["a", "bb" * 9, "ccc"]
    table = pa.table({"sentence": texts, "label": [0, 1, 0]})
    for split in ("train", "validation"):
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    data = load(glue("cola", path=str(tmp_path)), tokenizer)
    assert data.collate([data.train[0], data.train[2]])["input_ids"].shape == (2, 5)
    batch = data.collate([data.train[row] for row in range(3)])
    assert batch["input_ids"].shape == (3, 20)
    assert batch["attention_mask"].sum(1).tolist() == [3, 20, 5]
    assert batch["labels"].tolist() == [0, 1, 0] and not batch["labels"].is_floating_point()


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int64()])
def test_regression_labels_are_floats(kind, tmp_path, tokenizer):
    table = pa.table(
        {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": pa.array([2, 5], kind)}
    )
    for split in ("train", "validation"):
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    data = load(glue("stsb", path=str(tmp_path)), tokenizer)
    labels = data.collate([data.train[0], data.train[1]])["labels"]
    assert labels.is_floating_point() and labels.tolist() == [2.0, 5.0]


@pytest.mark.slow
def test_subset_is_drawn_once_for_all(data_folder, tokenizer):
    """The same whatever the run's random state; a smaller one is the front of a larger."""

    def ids(count):
        data = load(real(data_folder, "rte", train_rows=count), tokenizer)
        return [row["input_ids"] for row in data.train]

    np.random.seed(1)
    first = ids(50)
    np.random.seed(2)
    assert ids(50) == first and len(first) == 50
    assert ids(80)[:50] == first
    whole = ids(None)
    assert len(whole) == 2490 and whole[:50] != first and all(row in whole for row in first)


def test_more_training_rows_than_there_are_are_refused(folder, tokenizer):
    with pytest.raises(DataError, match="task.train_rows=100: there are 6 rows"):
        load(glue(path=str(folder), train_rows=100), tokenizer)


def test_first_evaluation_rows(folder, tokenizer):
    whole = load(glue(path=str(folder)), tokenizer).evaluations["validation"]
    cut = load(glue(path=str(folder), eval_rows=2), tokenizer).evaluations["validation"]
    assert [row["input_ids"] for row in cut] == [row["input_ids"] for row in whole][:2]


def test_hidden_test_labels_are_never_read(folder, tokenizer):
    assert len(load(glue(path=str(folder)), tokenizer).train) == 6


def test_two_validation_splits(tmp_path, tokenizer):
    """MNLI, laid out as on the hub: a folder per subset, shards with numbers."""
    place, columns = tmp_path / "mnli", ("premise", "hypothesis")
    place.mkdir()
    for shard in (0, 1):
        path = place / f"train-0000{shard}-of-00002.parquet"
        parquet.write_table(rows(columns, 5 + shard, 3), path)
    for split, count in (("matched", 4), ("mismatched", 3)):
        path = place / f"validation_{split}-00000-of-00001.parquet"
        parquet.write_table(rows(columns, count, 3), path)
    splits = ["validation_matched", "validation_mismatched"]
    task = glue("mnli", splits=splits, path=str(tmp_path))
    data = load(task, tokenizer)
    assert len(data.train) == 11
    assert {name: len(found) for name, found in data.evaluations.items()} == {
        "validation_matched": 4,
        "validation_mismatched": 3,
    }
    assert list(data.evaluations) == splits and task.head.labels == 3


def test_downloaded_data_are_read_without_a_network(folder, tmp_path, tokenizer, monkeypatch):
    """What `hf download` leaves in the cache; `test.parquet` is not asked for."""
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    repo = cache / "datasets--nyu-mll--glue"
    place = repo / "snapshots" / ("a" * 40) / "rte"
    place.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    for split in ("train", "validation"):
        shutil.copy(folder / f"{split}.parquet", place / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    data = load(glue(), tokenizer)
    local = load(glue(path=str(folder)), tokenizer)
    assert [row["input_ids"] for row in data.train] == [row["input_ids"] for row in local.train]
    assert data.fingerprint == local.fingerprint
    with pytest.raises(HubUnavailable, match="task.path=FOLDER"):
        glue("cola").locate()


def test_fingerprint_follows_the_rows(folder, tokenizer):
    first = load(glue(path=str(folder)), tokenizer).fingerprint
    (folder / "test.parquet").write_bytes(b"another")
    assert load(glue(path=str(folder)), tokenizer).fingerprint == first
    parquet.write_table(rows(count=7), folder / "train.parquet")
    assert load(glue(path=str(folder)), tokenizer).fingerprint != first


def test_not_a_folder(tmp_path, tokenizer):
    path = tmp_path / "file"
    path.write_text("")
    for wrong in (path, tmp_path / "nowhere"):
        with pytest.raises(HubUnavailable, match=f"task.path={wrong}: no such folder"):
            glue(path=str(wrong)).locate()


def test_empty_folder_names_every_missing_file(tmp_path):
    with pytest.raises(DataError) as caught:
        glue(path=str(tmp_path)).locate()
    said = str(caught.value)
    assert "no train.parquet" in said and "no validation.parquet" in said and "nothing" in said


def test_missing_split_is_found_before_anything_is_loaded(folder):
    (folder / "validation.parquet").unlink()
    with pytest.raises(DataError) as caught:
        glue(path=str(folder)).locate()
    assert "no validation.parquet" in str(caught.value)
    assert "no train.parquet" not in str(caught.value)
    assert "test.parquet, train.parquet" in str(caught.value)


def test_damaged_file_is_named(folder, tokenizer):
    path = folder / "validation.parquet"
    path.write_bytes(path.read_bytes()[:200])
    assert f"{path}: cannot be read as parquet" in str(refused(glue(path=str(folder)), tokenizer))


def test_every_problem_at_once(folder, tokenizer):
    (folder / "train.parquet").write_bytes(b"PAR1 and nothing else")
    parquet.write_table(
        rows(("sentence1", "other"), label=[0, 1, 0, 1, 0, HIDDEN]), folder / "validation.parquet"
    )
    problems = refused(glue(path=str(folder)), tokenizer).problems
    assert len(problems) == 3
    assert "train.parquet: cannot be read" in problems[0]
    assert problems[1] == (
        "split validation: no column 'sentence2' (columns: sentence1, other, label)"
    )
    assert "labels from -1 to 1, allowed 0 to 1 (hidden labels cannot be scored)" in problems[2]


def nulls(column):
    table = rows().to_pydict()
    table[column][2] = None
    return pa.table(table)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (rows(count=0), "split train: no rows"),
        (rows(label=[0, 1, 0, 1, 0, 2]), "labels from 0 to 2, allowed 0 to 1"),
        (rows(labels=1), "column 'label' holds float, wanted whole numbers"),
        (rows().drop_columns(["label"]), "no column 'label'"),
        (nulls("label"), "column 'label' is empty in 1 rows"),
        (nulls("sentence2"), "column 'sentence2' is empty in 1 rows"),
        (
            pa.table({"sentence1": ["a"], "sentence2": ["b"], "label": ["entailment"]}),
            "column 'label' holds string, wanted whole numbers",
        ),
        (
            pa.table({"sentence1": [1], "sentence2": ["b"], "label": [0]}),
            "column 'sentence1' holds int64, wanted text",
        ),
    ],
)
def test_wrong_data(folder, tokenizer, table, problem):
    parquet.write_table(table, folder / "train.parquet")
    (found,) = refused(glue(path=str(folder)), tokenizer).problems
    assert problem in found


def in_shards(folder, *tables):
    (folder / "train.parquet").unlink()
    for number, table in enumerate(tables):
        name = f"train-{number:05d}-of-{len(tables):05d}.parquet"
        parquet.write_table(table, folder / name)


def labelled_by(values, kind=None):
    return rows().set_column(2, "label", pa.array(values, kind))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (labelled_by([0, 0.5, 1, 1, 0, 1]), "column 'label' holds double, wanted whole numbers"),
        (labelled_by(list("010101")), "column 'label' holds string, wanted whole numbers"),
        (labelled_by([0, 1, 0, 1, 0, None]), "column 'label' is empty in 1 rows"),
        (labelled_by([0, 1, 0, 1, 0, 2]), "labels from 0 to 2, allowed 0 to 1"),
        (labelled_by([True, False] * 3), "column 'label' holds bool, wanted whole numbers"),
        (
            pa.table({"sentence1": list(b"abcdef"), "sentence2": list("abcdef"), "label": [0] * 6}),
            "column 'sentence1' holds int64, wanted text",
        ),
        (
            pa.table({"sentence1": [b"a"], "sentence2": ["b"], "label": [0]}),
            "column 'sentence1' holds binary, wanted text",
        ),
        (rows().drop_columns(["sentence2"]), "no column 'sentence2'"),
    ],
)
def test_every_shard_is_checked_as_a_single_file_is(folder, tokenizer, table, problem):
    in_shards(folder, rows(), table)
    (found,) = refused(glue(path=str(folder)), tokenizer).problems
    assert found.startswith(f"split train, train-00001-of-00002.parquet: {problem}")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64()])
def test_shards_of_other_widths_and_empty_ones_fit(folder, tokenizer, kind):
    empty = pa.table({"sentence1": [], "sentence2": [], "label": pa.array([], pa.float64())})
    in_shards(folder, rows(), labelled_by([1] * 6, kind), empty)
    assert load(glue(path=str(folder)), tokenizer).train["labels"] == [0, 1, 0, 1, 0, 1] + [1] * 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("shards", [1, 2])
def test_labels_that_are_not_finite_are_refused_as_empty_ones_are(
    tmp_path, tokenizer, kind, value, shards
):
    good = rows(("sentence1", "sentence2"), labels=1)
    bad = labelled_by(np.array([0, 1, value, 2, 3, 4], kind.to_pandas_dtype()), kind)
    parquet.write_table(good, tmp_path / "train.parquet")
    parquet.write_table(bad, tmp_path / "validation.parquet")
    if shards == 2:
        in_shards(tmp_path, good, bad)
        parquet.write_table(good, tmp_path / "validation.parquet")
    (problem,) = refused(glue("stsb", path=str(tmp_path)), tokenizer).problems
    assert problem.endswith(": column 'label' is NaN or infinite in 1 rows")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (
            {"metrics": ["accuracy", "acuracy"]},
            "task.metrics=acuracy: not for classification (allowed: accuracy",
        ),
        ({"metrics": ["pearson"]}, "not for classification (allowed: accuracy, f1, matthews)"),
        ({"labels": 1}, "not for regression (allowed: pearson, spearman)"),
        ({"metrics": []}, "task.metrics=[]"),
        ({"splits": []}, "task.splits=[]"),
        ({"columns": []}, "task.columns=[]"),
        ({"max_length": 2}, "task.max_length=2"),
        ({"train_rows": 0}, "task.train_rows=0"),
        ({"eval_rows": -1}, "task.eval_rows=-1"),
    ],
)
def test_settings_are_checked(changes, word):
    assert list(glue().problems()) == []
    (problem,) = glue(**changes).problems()
    assert word in problem


def test_several_wrong_settings_at_once():
    assert len(list(glue(metrics=["a", "b"], max_length=1, train_rows=0).problems())) == 4


def toy(**changes):
    fields = {"classes": 8, "points_per_class": 30, "radius": 5.0, "noise": 0.5, "data_seed": 0}
    return Toy(name="toy", metrics=["accuracy"], **fields | changes)


def points(data):
    batch = data.collate(list(data.train))
    return batch["points"].numpy(), batch["labels"].numpy()


def test_toy_is_separable():
    found, labels = points(toy().load(None, None))
    angles = 2 * np.pi * np.arange(8) / 8
    centres = 5 * np.stack([np.cos(angles), np.sin(angles)], 1)
    nearest = ((found[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert found.shape == (240, 2) and found.dtype == np.float32
    assert (np.bincount(labels) == 30).all()
    assert (nearest == labels).mean() > 0.995


def test_toy_is_the_same_for_every_run():
    np.random.seed(1)
    first = toy().load(None, None)
    np.random.seed(2)
    second = toy().load(None, None)
    np.testing.assert_array_equal(points(first)[0], points(second)[0])
    assert first.fingerprint == second.fingerprint
    assert toy(data_seed=1).load(None, None).fingerprint != first.fingerprint


def test_toy_is_scored_on_its_own_points():
    data = toy(train_rows=50).load(None, None)
    assert len(data.train) == 50
    np.testing.assert_array_equal(points(data)[0], points(toy().load(None, None))[0][:50])
    assert [row["labels"] for row in data.evaluations["train"]] == points(data)[1].tolist()


@pytest.mark.parametrize("key", ["classes", "points_per_class", "radius", "noise", "data_seed"])
def test_toy_settings_are_checked(key):
    assert not list(toy().problems())
    (problem,) = toy(**{key: -1}).problems()
    assert f"task.{key}=-1" in problem


def test_score_is_every_metric_primary_first():
    task = dataclasses.replace(glue(), metrics=["f1", "accuracy"])
    found = task.score(np.eye(2)[[0, 1, 1, 0]], np.array([0, 1, 0, 0]))
    assert list(found) == ["f1", "accuracy"] and found["accuracy"] == 0.75


def test_no_task_has_no_data():
    assert NoTask(name="none").head.kind == "none" and not list(NoTask(name="none").problems())
    with pytest.raises(TypeError, match="mode=count"):
        Task(name="none", metrics=[]).load(None, None)


def test_glue_tokens_are_kept_and_those_of_other_rows_are_not_taken(
    compose, data_folder, tmp_path, monkeypatch
):
    """The second load calls no tokenizer; another subset, data set or length does."""
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))
    calls = []

    def load(*changes):
        given = ["model=minilm", "task=rte", "method=lora", "source=ours", *changes]
        found = compose([*given, f"task.path={data_folder / 'glue/rte'}", "task.train_rows=8"])
        processor = found.model.processor(found.model.locate())
        kind = type(processor)

        class Counting(kind):
            def __call__(self, *args, **kwargs):
                calls.append(args)
                return super().__call__(*args, **kwargs)

        processor.__class__ = Counting
        data, before = found.task.load(processor, str(data_folder / "glue/rte")), len(calls)
        calls.clear()
        return data, before

    first, made = load("task.eval_rows=8")
    again, reused = load("task.eval_rows=8")
    assert made == 2 and reused == 0
    assert list(first.train) == list(again.train) and first.lengths == again.lengths
    assert load("task.eval_rows=6")[1] == 1
    assert load("task.eval_rows=8", "task.max_length=16")[1] == 2


def test_toy_scores_other_points_and_keeps_what_the_network_makes_of_the_plane(compose, tmp_path):
    import torch

    task = compose(["model=mlp", "task=toy"]).task
    data = task.load(None, None)
    train, test = points(data), data.evaluations["test"]
    assert list(data.evaluations) == task.splits == ["train", "test"] and len(test) == 240
    other = np.stack([row["points"] for row in test])
    assert not np.isin(other, train[0]).any(), "a test point is a training point"

    class Sides(torch.nn.Module):
        """Class 1 right of the middle, else 0."""

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, points):
            return {"logits": torch.stack([-points[:, 0], points[:, 0]], dim=1)}

    task.generate(Sides(), None, data, tmp_path, 0)
    with np.load(tmp_path / "regions.npz") as found:
        classes, reach = found["classes"], found["reach"]
        assert np.array_equal(found["points"], train[0])
    assert reach == 7 and classes.shape == (241, 241)
    assert (classes[:, :120] == 0).all() and (classes[:, 121:] == 1).all()
