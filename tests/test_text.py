"""task=text: real rows of SST-2 and STS-B in tables of every format, and every mistake."""

import json

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from experiments.commands.predict import read_rows
from experiments.config.changes import find_changes
from experiments.config.compose import compose_config, register
from experiments.config.load import load_config
from experiments.errors import UserError
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.results import inputs
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.record import Record, write_record
from experiments.run.main import run
from experiments.tasks import Text, table_files
from experiments.tasks.held_out import describe, draw_held_out
from experiments.tasks.label_column import LabelKind

NAMES = ["negative", "positive"]


def text(path, **changes):
    fields = {"name": "text", "data": None, "label": "sentiment", "validation_share": 0.2}
    task = Text(**fields | {"path": path and str(path), "max_length": 64} | changes)
    task.resolve()
    return task


def refused(path, **changes):
    with pytest.raises(UserError) as caught:
        text(path, **changes)
    return caught.value


def load(task):
    return task.load(make_byte_tokenizer(514), task.locate())


def put(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".json":
        frame.to_json(path, orient="records")
    elif path.suffix in (".jsonl", ".ndjson"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return path


@pytest.fixture(scope="module")
def real(data_folder):
    """300 rows of SST-2 with words as labels."""
    rows = parquet.read_table(data_folder / "glue/sst2/train.parquet").to_pandas()[:300]
    return rows.assign(sentiment=[NAMES[label] for label in rows.label]).drop(columns="label")


@pytest.fixture
def small():
    return pd.DataFrame({"words": [f"row {row}" for row in range(10)], "sentiment": NAMES * 5})


ENDINGS = ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_real_rows_are_the_same_in_every_format(ending, real, tmp_path):
    task = text(put(real, tmp_path / f"reviews.{ending}"))
    assert (task.columns, task.class_names, task.metrics) == (
        ["sentence"],
        NAMES,
        ["accuracy", "matthews"],
    )
    data = load(task)
    assert (len(data.train), len(data.evaluations["validation"])) == (240, 60)
    held_out = [int(row) - 1 for row in data.held_out["rows"].split()]
    scored = data.evaluations["validation"]
    assert [NAMES[label] for label in scored["labels"]] == list(real.sentiment[held_out])
    tokens = make_byte_tokenizer(514)(real.sentence[held_out[7]], truncation=True, max_length=64)
    assert scored[7]["input_ids"] == tokens["input_ids"]
    shares = [sum(part["labels"]) / len(part) for part in (data.train, scored)]
    assert abs(shares[0] - shares[1]) < 0.02, "stratified"


def test_validation_file_is_scored_as_it_is(real, tmp_path):
    put(real[:200], tmp_path / "train.csv")
    put(real[200:], tmp_path / "val.csv")
    data = load(text(tmp_path))
    assert (len(data.train), len(data.evaluations["validation"])) == (200, 100)
    assert data.held_out is None
    assert sorted(text(tmp_path).inputs()) == ["train data", "validation data"]


def test_two_texts_and_a_score(data_folder, tmp_path):
    rows = parquet.read_table(data_folder / "glue/stsb/train.parquet").to_pandas()[:100]
    path = put(rows, tmp_path / "pairs.csv")
    task = text(path, label="label", columns=["sentence1", "sentence2"])
    assert (task.head.kind, task.head.labels, task.class_names) == ("regression", 1, None)
    assert task.metrics == ["pearson", "spearman"]
    row = load(task).train[0]
    assert isinstance(row["labels"], float)


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([3, 1, 2, 1, 3, 2], "classification", ["1", "2", "3"]),
        ([10, 9, 10, 9, 10, 9], "classification", ["9", "10"]),
        ([1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "classification", ["1", "2"]),
        ([0.5, 2.0, 1.0, 2.0, 1.0, 2.0], "regression", None),
        ([True, False] * 3, "classification", ["False", "True"]),
        (["NA", "None", "NA", "None", "x", "x"], "classification", ["NA", "None", "x"]),
        (["yes ", "no", "yes", " no", "yes", "no"], "classification", ["no", "yes"]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_are_read_by_one_rule(ending, labels, kind, names, tmp_path):
    frame = pd.DataFrame({"words": list("abcdef"), "sentiment": labels})
    task = text(put(frame, tmp_path / f"rows.{ending}"))
    assert (task.kind.value, task.class_names, task.head.kind) == (kind, names, kind)
    assert task.head.names == tuple(names or ())
    if kind == "classification":
        assert text(put(frame, tmp_path / f"rows.{ending}")).head.labels == len(names)


def test_names_of_classes_in_the_file_are_kept(tmp_path):
    import datasets

    features = datasets.Features(
        {"words": datasets.Value("string"), "sentiment": datasets.ClassLabel(names=NAMES)}
    )
    for labels in ([0, 1, 1, 0], [0, -1, 1, -1]):
        rows = datasets.Dataset.from_dict(
            {"words": list("abcd"), "sentiment": labels}, features=features
        )
        rows.to_parquet(tmp_path / f"{labels[1]}.parquet")
    assert text(tmp_path / "1.parquet").class_names == NAMES
    assert "labels outside 0 to 1 in 2 rows: 2, 4" in str(refused(tmp_path / "-1.parquet"))


def test_many_whole_numbers_must_be_said(small, tmp_path):
    frame = pd.concat([small] * 3).assign(sentiment=range(30))
    path = put(frame, tmp_path / "rows.csv")
    said = str(refused(path))
    assert "30 different whole numbers" in said and "task.kind=regression" in said
    assert "at most 20" in said, "the rule"
    assert text(path, kind=LabelKind.regression).head.kind == "regression"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            [*(row / 7 for row in range(5)), "n/a", *range(24)],
            "29 of 30 labels are numbers; row 6 is 'n/a'",
        ),
        ([f"0,{row:02}" for row in range(30)], "row 1 is '0,00', row 2 is '0,01', row 3"),
        (["0,5", "1,0"] * 15, "and 27 more (decimal comma? write 0.5, not 0,5)"),
        (["0,5", *range(28), " -"], "28 of 30 labels are numbers; row 30 is '-'; row 1 is '0,5' ("),
    ],
)
def test_numbers_with_mistakes_are_not_taken_for_classes(labels, said, small, tmp_path):
    path = put(pd.concat([small] * 3).assign(sentiment=labels), tmp_path / "rows.csv")
    problems = refused(path).problems
    assert said in problems[0] and "task.kind=classification" in problems[1]
    twice = put(pd.concat([small] * 6).assign(sentiment=labels * 2), tmp_path / "twice.csv")
    assert text(twice, kind=LabelKind.classification).head.labels == len({*map(str, labels)})
    (problem,) = refused(path, kind=LabelKind.regression).problems
    assert said.rpartition("numbers; ")[2] in problem
    path = put(pd.concat([small] * 3).assign(sentiment=["nan", *range(29)]), tmp_path / "nan.csv")
    assert refused(path, kind=LabelKind.regression).problems == [
        "train: labels that are NaN or infinite in rows 1"
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("aabbcdde", "5 classes in 8 rows"),
        ("aabbcdde", "classes with one row: 'c' (row 5), 'e' (row 8)"),
        (["Yes ", "yes", "no", "no"] * 2, "case or blanks alone: 'Yes' beside 'yes'"),
        ("12112n22", "7 of 8 labels are numbers; row 6 is 'n'"),
    ],
)
def test_classes_that_look_like_mistakes_are_warned_of(labels, said, small, tmp_path, caplog):
    task = text(put(small[:8].assign(sentiment=[*labels]), tmp_path / "rows.csv"))
    task.read(None)
    assert said in caplog.text
    caplog.clear()
    text(put(small, tmp_path / "plain.csv")).read(None)
    assert "classes" not in "".join(one.message for one in caplog.records if one.levelno > 20)


def test_more_rows_than_asked_are_held_out_for_many_classes(small, tmp_path, caplog):
    path = put(small.assign(sentiment=[*"abcdeabcde"]), tmp_path / "rows.csv")
    with caplog.at_level("INFO", "experiments"):
        text(path).read(None)
    assert "5 of 10 rows (task.validation_share=0.2, one for each class of" in caplog.text


def test_every_problem_at_once(small, tmp_path):
    broken = small.assign(sentiment=[*NAMES * 4, None, None], other="x")
    broken.loc[2, "words"] = None
    problems = refused(put(broken, tmp_path / "rows.csv"), columns=["words", "title"]).problems
    assert problems == [
        "column 'words' is empty in 1 rows: 3",
        "task.columns=title: no such column (columns: words, sentiment, other)",
        "column 'sentiment' is empty in 2 rows: 9, 10",
    ]
    problems = refused(tmp_path / "rows.csv", label="stars").problems
    assert problems == ["task.label=stars: no such column (columns: words, sentiment, other)"], (
        "columns are looked at once the label is known"
    )
    assert "did you mean 'sentiment'?" in str(refused(tmp_path / "rows.csv", label="sentimnt"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["one"] * 10, "one class only, 'one'"),
        (list("abcdefghij"), "no class has two rows"),
        (["can", "can\x92t"] * 5, r"classes with control characters: 'can\x92t'"),
    ],
)
def test_labels_that_cannot_be_learnt(labels, said, small, tmp_path):
    (problem,) = refused(put(small.assign(sentiment=labels), tmp_path / "rows.csv")).problems
    assert said in problem


def test_new_class_in_the_validation_file(small, tmp_path):
    put(small, tmp_path / "train.csv")
    put(small.assign(sentiment=["mixed"] * 10), tmp_path / "validation.csv")
    assert refused(tmp_path).problems == ["validation: classes that train has not: mixed"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", b"words,sentiment\na,b,c\n", "row 1 (line 2) has 3 cells, the header 2"),
        ("rows.csv", b"words,sentiment\na,x\n\nb,y,z\n", "row 2 (line 4) has 3 cells"),
        ("rows.csv", b'words,sentiment\n"a\nb",x\nb,y,z\n', "row 2 (line 4) has 3 cells"),
        ("rows.csv", b"words,sentiment\na,x\ncaf\xe9,x\n", "byte 0xe9 in row 2 (line 3), as other"),
        ("rows.csv", b"words,s\xe9\n", "in the header (line 1)"),
        ("rows.jsonl", b'{"words": "caf\xe9"}\n', "in line 1, as other encodings write '\u00e9'"),
        ("rows.csv", "words,sentiment\na,x\n".encode("utf-16"), "this is UTF-16"),
        ("rows.jsonl", '{"words": "a"}\n'.encode("utf-16-le"), "save it as UTF-8"),
        ("rows.csv", b"", "cannot be read (it is empty)"),
        ("rows.csv", b'words,sentiment\na,x\n"b,y\nc,x\n', "quotation mark in row 2 (line 3)"),
        ("rows.csv", b'words,sentiment\n"b,y\nc,x\n"d",y\n', "quotation mark in row 1 (line 2)"),
        ("rows.csv", b'"words,sentiment\na,x\n', "quotation mark in the header (line 1)"),
        ("rows.tsv", b'words\tsentiment\n"a\tx\nb"\ty\n', "quotation mark in row 1"),
        ("rows.jsonl", b'{"words": "a"\n', "cannot be read"),
        ("rows.json", b"[1, 2]", "not a list of objects"),
        ("rows.parquet", b"PAR1", "cannot be read"),
        ("rows.xlsx", b"", "its name ends with '.xlsx' (allowed: .csv"),
    ],
)
def test_unreadable_files(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert said in str(refused(tmp_path / name))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators_of_spreadsheets_are_told_by_the_header(separator, small, tmp_path):
    small.assign(words="one, two").to_csv(tmp_path / "rows.csv", sep=separator, index=False)
    assert text(tmp_path / "rows.csv").columns == ["words"]
    (tmp_path / "one.csv").write_text('words,"a;b;c"\none;two,x\n')
    assert table_files.read_tables([tmp_path / "one.csv"]).column_names == ["words", "a;b;c"]
    named = f"sep={separator}\r\nwords,sentiment{separator}other\r\none{separator}x\r\n"
    (tmp_path / "named.csv").write_text(named, newline="")
    table = table_files.read_tables([tmp_path / "named.csv"])
    assert table.column_names == ["words,sentiment", "other"] and table.num_rows == 1
    (tmp_path / "named.csv").write_text(named.replace("x", f"x{separator}y"))
    assert "row 1 (line 3) has 3 cells" in str(refused(tmp_path / "named.csv"))


def test_old_line_ends_and_long_texts(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"words,sentiment\rone,x\rtwo,y\r")
    assert table_files.read_tables([path]).column("words").to_pylist() == ["one", "two"]
    for content, said in (
        (b"words,sentiment\r\xe9,x\r", "byte 0xe9 in row 1 (line 2)"),
        (b"words,sentiment\n" + b"a" * 200_000 + b",x\n\xe9,y\n", "byte 0xe9 in row 2 (line 3)"),
        (b'"words,sentiment\n' + b"a,x\n" * 50_000, "quotation mark in the header (line 1)"),
    ):
        path.write_bytes(content)
        assert said in str(refused(path))


def test_cells_of_several_lines_are_read(small, tmp_path):
    path = put(small.assign(words='a "word"\nand, more'), tmp_path / "rows.csv")
    assert load(text(path)).train.num_rows == 8


def test_columns_of_one_name(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,text,id,id,sentiment\n" + "a b,c d,1,2,x\na b,c d,1,2,y\n" * 4)
    assert refused(path).problems == [
        "task.columns=text: two columns named 'text', rename all but one"
    ]
    path.write_text(path.read_text().replace("text,text", "text,title"))
    assert text(path, columns=["text"]).columns == ["text"], "the others do not matter"
    with pytest.raises(UserError, match="several columns named 'id'"):
        read_rows(str(path))


def test_folders_that_are_unclear(small, tmp_path):
    assert "no train file" in str(refused(tmp_path)) and "holds: nothing" in str(refused(tmp_path))
    put(small, tmp_path / "train.csv")
    put(small, tmp_path / "train.tsv")
    assert "several files of train: train.csv, train.tsv" in str(refused(tmp_path))
    assert "no such file" in str(refused(tmp_path / "nowhere.csv"))
    (tmp_path / "shards").mkdir()
    put(small, tmp_path / "shards/train-0.parquet")
    put(small.assign(words=1), tmp_path / "shards/train-1.parquet")
    assert "files of one split that do not fit together" in str(refused(tmp_path / "shards"))
    with pytest.raises(UserError, match="task.path=null: names a file"):
        text(None)


def test_held_out_rows_keep_the_classes():
    kept, scored = draw_held_out(["a"] * 8 + ["b"] * 2 + ["c"], 0.2, True)
    assert sorted([*kept, *scored]) == list(range(11))
    assert len(scored) == 3 and sum(row < 8 for row in scored) == 2 and 10 in kept
    again = draw_held_out(["a"] * 8 + ["b"] * 2 + ["c"], 0.2, True)
    assert list(again[1]) == list(scored), "the same in every run"
    kept, scored = draw_held_out([0.1, 0.2, 0.3], 0.2, False)
    assert len(kept) == 2 and len(scored) == 1
    for labels, by_class in ((["a", "b"], True), ([0.1], False)):
        with pytest.raises(UserError, match="so that none can be held out"):
            draw_held_out(labels, 0.2, by_class)


def test_a_record_names_held_out_rows_up_to_a_length():
    assert describe(0.2, np.arange(3))["rows"] == "1 2 3"
    said = describe(0.2, np.arange(60000))["rows"]
    assert said.startswith("60000 rows, sha256 ") and len(said) < 100


def test_tokens_of_other_labels_are_not_taken_from_the_cache(small, tmp_path):
    path = put(small.assign(stars=[1, 2, 2, 1, 1] * 2), tmp_path / "rows.csv")
    one, other = (
        list(load(text(path, label=name, columns=["words"])).train["labels"])
        for name in ("sentiment", "stars")
    )
    assert one != other


def test_names_of_classes_reach_the_network(own_data, compose):
    run = compose(["task=text", "model=minilm", "task.path=reviews.csv", "task.label=sentiment"])
    assert (run.recipe, run.variant) == ("ours", "data=reviews.csv,label=sentiment")
    asked = ["model=minilm", "task=generate", "task.path=questions.jsonl"]
    register()
    cfg = compose_config([*asked, "model.heads=[language]"])
    assert find_changes(cfg, asked)["task.data"] == "questions.jsonl", "named after its file"
    net = run.model.build(run.task.head, None, meta=True)
    assert net.config.id2label == {0: "negative", 1: "positive"}
    assert net.config.label2id == {"negative": 0, "positive": 1}
    from experiments.config.restore import restore_config
    from experiments.results.identity import to_plain

    (own_data / "reviews.csv").unlink()
    restored = restore_config(json.loads(json.dumps(to_plain(run))), [])
    assert restored.task.head == run.task.head, "a record needs no data"


def test_labels_flipped_in_place_are_told_with_the_score_of_the_run(own_data, compose):
    asked = ["task=text", "model=minilm", "model.pretrained=false", "task.label=sentiment"]
    asked += [f"task.path={own_data}/reviews.csv", f"output={own_data}/runs"]
    place, config = _finish(asked, compose)
    assert run(config).metrics["primary"]["value"] == 0.75, "done before"
    words = (own_data / "reviews.csv").read_text()
    (own_data / "reviews.csv").write_text(words.replace("negative", "?").replace("posi", "nega"))
    with pytest.raises(UserError) as caught:
        run(config)
    changed, found = caught.value.problems
    assert changed.startswith("train data: found ") and "reviews.csv" in changed
    assert "best accuracy 0.7500 [0.5000, 0.9000]" in found and "force=true" in str(caught.value)
    (own_data / "others.csv").write_text(words)
    other = compose([one.replace("reviews", "others") for one in asked])
    assert get_run_dir(other) != place, "another file is another run"


def test_a_validation_file_that_comes_or_goes_changes_the_data(own_data, compose):
    folder = own_data / "split"
    folder.mkdir()
    (own_data / "reviews.csv").rename(folder / "train.csv")
    asked = ["task=text", "model=minilm", "model.pretrained=false", "task.label=sentiment"]
    asked += [f"task.path={folder}", f"output={own_data}/runs"]
    _, config = _finish(asked, compose)
    assert run(config).metrics["primary"]["value"] == 0.75
    (folder / "validation.csv").write_text((folder / "train.csv").read_text())
    with pytest.raises(UserError, match=r"validation data: found .*, expected none"):
        run(config)
    config.seed = 1
    _finish(asked, lambda _: config)
    (folder / "validation.csv").unlink()
    with pytest.raises(UserError, match="validation data: found none, expected "):
        run(config)


def test_a_finished_run_is_shown_when_its_data_are_gone(own_data, compose, caplog):
    asked = ["task=text", "model=minilm", "model.pretrained=false", "task.label=sentiment"]
    asked += [f"task.path={own_data}/reviews.csv", f"output={own_data}/runs"]
    place, config = _finish(asked, compose)
    (own_data / "reviews.csv").unlink()
    again = load_config(compose_config(asked))  # `compose` remembers
    assert "reviews.csv: no such file or folder; the finished run is shown" in caplog.text
    assert (again.task, get_run_dir(again)) == (config.task, place)
    assert run(again).metrics["primary"]["value"] == 0.75
    for other in ("seed=1", "force=true"):
        with pytest.raises(UserError, match="reviews.csv: no such file"):
            load_config(compose_config([*asked, other]))


def _finish(asked, compose):
    """Folder and configuration of a run with a record, which was not trained."""
    config = compose(asked)
    place = get_run_dir(config)
    place.mkdir(parents=True)
    primary = {"name": "accuracy", "select": "best", "value": 0.75, "interval": [0.5, 0.9]}
    record = Record(
        run={"model": "minilm", "task": "text", "method": "fourierft", "variant": ""},
        config=to_plain(config),
        parameters={"adapter": 3, "stored_bytes": 12, "head": 0},
        metrics={"primary": primary},
        time={},
        memory={},
        environment={"inputs": inputs.describe(config)},
    )
    write_record(place, record)
    return place, config
