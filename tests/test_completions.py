"""task=generate: prompts and answers of the user's own, from a table to a predicted text."""

import json

import pandas as pd
import pytest

from experiments.commands import predict, trained_run
from experiments.errors import UserError
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.run.main import run
from experiments.tasks import Completions
from experiments.tasks.language import IGNORED

ROWS = pd.DataFrame(
    {
        "prompt": [f"Say {row}" for row in range(20)],
        "answer": [f"It is {row}." for row in range(20)],
    }
)


def pairs(path, **changes):
    fields = {"name": "generate", "data": None, "prompt": "prompt", "answer": "answer"}
    fields |= {"template": "{prompt}\n", "validation_share": 0.1, "metrics": ["cross_entropy"]}
    task = Completions(path=str(path), max_length=64, max_new_tokens=8, **fields | changes)
    task.resolve()
    return task


@pytest.fixture
def table(tmp_path):
    ROWS.to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path / "pairs.csv"


def test_answers_alone_are_learnt(table):
    tokenizer = make_byte_tokenizer(128, causal=True)
    data = pairs(table).load(tokenizer, None)
    assert (len(data.train), len(data.evaluations["validation"])) == (18, 2)
    held_out = [int(row) - 1 for row in data.held_out["rows"].split()]
    row = data.evaluations["validation"][0]
    text = tokenizer.decode(row["input_ids"], skip_special_tokens=True)
    assert text == f"Say {held_out[0]}\nIt is {held_out[0]}."
    both = zip(row["input_ids"], row["labels"], strict=True)
    learnt = [token for token, label in both if label != IGNORED]
    assert tokenizer.decode(learnt, skip_special_tokens=True) == f"It is {held_out[0]}."


def test_chat_template_is_used_where_there_is_one(table):
    tokenizer = make_byte_tokenizer(128, causal=True)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>"
    row = {"prompt": "Say 3"}
    assert pairs(table).make_prompt(row, tokenizer) == "<user>Say 3<a>"
    assert pairs(table, chat_template=False).make_prompt(row, tokenizer) == "Say 3\n"


def test_mistakes(tmp_path, table):
    ROWS.assign(answer=["x", " "] + ["y"] * 18).to_csv(table, index=False)
    with pytest.raises(UserError) as caught:
        pairs(table, prompt="question")
    assert caught.value.problems == [
        "train: task.prompt=question: no such column (columns: prompt, answer)",
        "train: column 'answer' has no text in 1 rows: 2",
    ]
    ROWS.to_csv(table, index=False)
    assert "lacks {prompt}" in next(pairs(table, template="{{prompt}}").problems())
    assert "cannot be filled in" in next(pairs(table, template="{question}").problems())


def test_a_trained_model_answers(table, tmp_path, compose, capsys):
    common = ["model=gpt2_tiny", "task=generate", "train.device=cpu", "train.max_steps=2"]
    given = [f"task.path={table}", f"output={tmp_path}/runs", "task.max_new_tokens=6"]
    record = run(compose([*common, *given]))
    assert record.run["recipe"] == "ours" and record.metrics["primary"]["name"] == "cross_entropy"
    assert record.environment["held_out"]["share"] == 0.1
    place = next((tmp_path / "runs").rglob("metrics.json")).parent
    ROWS[:3].to_json(tmp_path / "new.jsonl", orient="records", lines=True)
    capsys.readouterr()
    assert predict.main([str(place), "--input", str(tmp_path / "new.jsonl")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in lines] == ["Say 0", "Say 1", "Say 2"]
    opened = trained_run.open_run(place, [])
    assert [line["prediction"] for line in lines] == [
        predict.predict(opened, [{"prompt": f"Say {row}"}])[0]["prediction"] for row in range(3)
    ]
