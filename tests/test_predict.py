"""`experiments.predict`: the predictions of a finished run, for rows it has or has not scored."""

import csv
import io
import json
import sys

import numpy as np
import pandas as pd
import pytest

from experiments.commands import predict
from experiments.errors import UserError
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.results import predictions


@pytest.fixture(scope="module")
def trained(text_run):
    """A finished run on three classes of texts."""
    return text_run / "run"


@pytest.fixture(scope="module")
def rows(text_run):
    return pd.read_csv(text_run / "moods.csv")


def predicted(capsys, *arguments):
    assert predict.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_scored_rows_get_their_recorded_predictions(trained, rows, tmp_path, capsys):
    record = json.loads((trained / "metrics.json").read_text())
    assert record["config"]["task"]["class_names"] == ["glad", "sad", "so-so"]
    held_out = record["environment"]["held_out"]
    scored = rows.iloc[[int(row) - 1 for row in held_out["rows"].split()]]
    assert len(scored) == 18 and held_out["share"] == 0.2
    scored.to_csv(tmp_path / "scored.csv", index=False)
    found = read(predicted(capsys, trained, "--input", tmp_path / "scored.csv"))
    assert [row["words"] for row in found] == list(scored.words)
    step = record["metrics"]["best"]["step"]
    stored = predictions.load_step(trained, "validation", step)
    names = [key for key in found[0] if key.startswith("probability ")]
    assert names == ["probability glad", "probability sad", "probability so-so"]
    shares = np.array([[float(row[name]) for name in names] for row in found])
    logits = stored.predictions - stored.predictions.max(1, keepdims=True)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    chosen = [record["config"]["task"]["class_names"][one] for one in stored.predictions.argmax(1)]
    assert [row["prediction"] for row in found] == chosen
    right = np.mean([one == mood for one, mood in zip(chosen, scored.mood, strict=True)])
    assert record["metrics"]["best"]["scores"]["validation"]["accuracy"] == pytest.approx(right)


def test_logits_are_those_of_the_evaluation_bit_for_bit(trained, rows):
    from experiments.commands import trained_run

    opened = trained_run.open_run(trained, [])
    processor, task = opened.config.model.processor(None), opened.config.task
    held_out = opened.record.environment["held_out"]["rows"].split()
    scored = rows.iloc[[int(row) - 1 for row in held_out]].to_dict("records")
    net = opened.config.method.restore(trained_run.build_base(opened), opened.adapter, merged=False)
    logits = predict.compute_logits(
        net, task.prepare_inputs(scored, processor), task.get_collator(processor), 64, "fp32"
    )
    step = opened.record.metrics["best"]["step"]
    stored = predictions.load_step(trained, "validation", step).predictions
    np.testing.assert_array_equal(logits, stored)


def test_standard_input_in_both_formats(trained, monkeypatch, capsys):
    def given(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return predicted(capsys, trained, "--input", "-")

    (row,) = read(given("words,about\nvery glad,x\n"))
    assert list(row)[:3] == ["words", "about", "prediction"]
    lines = [json.loads(line) for line in given('{"words": "sad"}\n{"words": "ää"}\n').splitlines()]
    assert [line["words"] for line in lines] == ["sad", "ää"]
    assert all(line["prediction"] in ("glad", "sad", "so-so") for line in lines)


def test_the_batch_does_not_matter(trained, rows, tmp_path, capsys):
    rows[:20].to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    whole, single = (
        [
            json.loads(line)
            for line in predicted(
                capsys, trained, "--input", tmp_path / "rows.jsonl", "--batch-size", size
            ).splitlines()
        ]
        for size in (20, 1)
    )
    for one, other in zip(whole, single, strict=True):
        assert one["probability glad"] == pytest.approx(other["probability glad"], abs=1e-5)


def refused(*arguments):
    with pytest.raises(UserError) as caught:
        predict.main([str(argument) for argument in arguments])
    return str(caught.value)


def test_what_cannot_be_predicted(trained, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("title\nx\n")
    assert "no column 'words' (columns: title)" in refused(trained, "--input", path)
    path.write_text("words,n\nx,1\n,2\n")
    assert "column 'words' has no text in rows 2" in refused(trained, "--input", path)
    path.write_text("words,prediction\nx,y\n")
    assert "columns of predictions: prediction" in refused(trained, "--input", path)
    path.write_text("words\n")
    assert "no rows" in refused(trained, "--input", path)
    path.write_text("words\nx\n")
    assert "not a finished run" in refused(tmp_path, "--input", path)
    assert "train.epochs=3 (allowed: " in refused(trained, "--input", path, "train.epochs=3")
    assert "already exists" in refused(trained, "--input", path, "--output", path)
    # Refused before the input is read.
    for name, said in (("out.xls", "must end with"), ("none/out.csv", "no such folder")):
        assert said in refused("run", "--input", "none.csv", "--output", tmp_path / name)
    assert refused("run", "--input", "none.csv") == "--input=none.csv: no such file or folder"


def test_output_files(trained, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("words\nvery glad\n")
    for name, read_file in (
        ("out.parquet", pd.read_parquet),
        ("out.json", pd.read_json),
        ("out.tsv", lambda file: pd.read_csv(file, sep="\t")),
    ):
        arguments = [str(trained), "--input", str(path), "--output", str(tmp_path / name)]
        assert predict.main(arguments) == 0
        assert list(read_file(tmp_path / name)["words"]) == ["very glad"]


@pytest.mark.parametrize(
    ("task", "row", "prompt"),
    [
        ("e2e", {"meaning_representation": "name[Zizzi], food[pasta]"}, "name : Zizzi | food : "),
        ("alpaca", {"instruction": "Name a river."}, "### Instruction:\nName a river.\n\n### Res"),
        (
            "alpaca",
            {"instruction": "Sum up.", "input": "A text."},
            "### Instruction:\nSum up.\n\n### Input:\nA text.\n\n### Res",
        ),
    ],
)
def test_language_tasks_read_their_own_columns(task, row, prompt, compose):
    model = "gpt2_tiny" if task == "e2e" else "stories260k"
    asked = [f"model={model}", "model.pretrained=false", f"task={task}", "task.max_new_tokens=9"]
    config, tokenizer = compose(asked), make_byte_tokenizer(1024, causal=True)
    (prepared,) = config.task.prepare_inputs([row], tokenizer)
    assert prompt in tokenizer.decode(prepared["input_ids"])
    with pytest.raises(UserError, match=f"no column '{next(iter(row))}'"):
        config.task.prepare_inputs([{"text": "x"}], tokenizer)
    if task == "alpaca":
        with pytest.raises(UserError, match="leave no room"):
            config.task.prepare_inputs([{key: "long " * 300 for key in row}], tokenizer)


def test_tasks_without_rows_of_a_table(compose):
    with pytest.raises(UserError, match="task=toy: predicts nothing from a table"):
        compose([]).task.prepare_inputs([{"text": "x"}], None)
