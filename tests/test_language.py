"""What language tasks share: rows as tokens, batches, and the loss, against transformers' own."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments import files
from experiments.tasks import language
from experiments.tasks import token_cache as keeping
from experiments.tasks.language import IGNORED, Collator, Language, encode

ROWS = [
    {"given": "Once upon a time", "wanted": " there was a little girl."},
    {"given": "Tom", "wanted": " saw a big, red ball in the park and ran to it."},
    {"given": "The sun is ", "wanted": "hot."},
]


@pytest.fixture(scope="module")
def story(data_folder):
    """A small LLaMA that tells stories, and its tokenizer."""
    folder = data_folder / "models/stories260K"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/tokens"


def task(**changes):
    return Language(name="x", metrics=["cross_entropy"], max_new_tokens=5, max_length=64, **changes)


def pieces(row):
    return row["given"], row["wanted"]


@pytest.mark.parametrize("row", ROWS)
def test_prompt_is_masked_and_the_end_is_learnt(story, row):
    tokenizer = story[1]
    found = encode(tokenizer, *pieces(row), 64)
    prompt = tokenizer(row["given"])["input_ids"]
    tokens, labels = found["input_ids"], found["labels"]
    assert tokens[: len(prompt)] == prompt, "generation begins with other tokens than training"
    assert labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert labels[len(prompt) :] == tokens[len(prompt) :]
    assert tokens[-1] == tokenizer.eos_token_id and tokens.count(tokenizer.eos_token_id) == 1
    text = tokenizer.decode(tokens[len(prompt) : -1])
    assert text.strip() == row["wanted"].strip()


def test_a_token_across_the_border_does_not_hide_the_completion(story):
    """`lit` and `little` share no tokens: the prompt's own stay."""
    tokenizer = story[1]
    found = encode(tokenizer, "a lit", "tle girl", 64)
    prompt = tokenizer("a lit")["input_ids"]
    assert tokenizer("a little girl")["input_ids"][: len(prompt)] != prompt
    assert found["input_ids"][: len(prompt)] == prompt
    assert all(label != IGNORED for label in found["labels"][len(prompt) :])


def test_rows_are_cut(story):
    whole = encode(story[1], *pieces(ROWS[1]), 64)
    cut = encode(story[1], *pieces(ROWS[1]), 9)
    assert cut == {key: values[:9] for key, values in whole.items()}


def test_batches_are_padded_at_the_right_and_masked():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]},
        {"input_ids": [8], "labels": [8]},
    ]
    batch = Collator(2)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert {values.dtype for values in batch.values()} == {torch.int64}


def test_score_is_the_loss_of_transformers(story):
    net, tokenizer = story
    rows = [encode(tokenizer, *pieces(row), 64) for row in ROWS]
    with torch.no_grad():
        batch = Collator(tokenizer.pad_token_id)(rows)
        found = net(**batch)
        single = [net(**Collator(tokenizer.pad_token_id)([row])) for row in rows]
    losses, numbers = task().reduce(found.logits, batch["labels"])
    assert losses.shape == numbers.shape == (3,)
    expected = [len([label for label in row["labels"] if label != IGNORED]) for row in rows]
    assert numbers.tolist() == expected
    for loss, number, alone in zip(losses, numbers, single, strict=True):
        assert float(loss / number) == pytest.approx(float(alone.loss), rel=1e-5)
    scores = task().score(losses.numpy(), numbers.numpy())
    assert scores == {"cross_entropy": pytest.approx(float(found.loss), rel=1e-5)}


def test_rows_without_a_scored_token_count_nothing():
    assert task().score(np.zeros(2), np.zeros(2)) == {"cross_entropy": 0.0}


def test_tokens_are_made_once(story, cache, monkeypatch):
    rows, made = Dataset.from_list(ROWS), []

    def counted(row):
        made.append(row["given"])
        return pieces(row)

    first = task().tokenised(rows, story[1], counted, "key")
    assert len(made) == 3 and len(list(cache.glob("*.arrow"))) >= 1
    again = task().tokenised(rows, story[1], counted, "key")
    assert len(made) == 3, "tokenised again"
    assert first.to_list() == again.to_list()
    assert set(first.column_names) == {"input_ids", "labels"}


def test_tokens_are_made_again_where_they_would_differ(story, cache, monkeypatch, data_folder):
    made = []

    def counted(row):
        made.append(row["given"])
        return pieces(row)

    def tokens(length=64, key="key", tokenizer=story[1]):
        part = task()
        part.max_length = length
        made.clear()
        part.tokenised(Dataset.from_list(ROWS), tokenizer, counted, key)
        return len(made)

    assert tokens() == 3 and tokens() == 0
    assert tokens(length=32) == 3
    assert tokens(key="other data or format") == 3
    other = AutoTokenizer.from_pretrained(data_folder / "models/gpt2-tokenizer")
    assert tokens(tokenizer=other) == 3
    monkeypatch.setattr(keeping, "VERSION", -1)
    assert tokens() == 3
    assert files.get_cache_folder("tokens") == cache


def tokens_of(story, limit=64):
    part, made = task(), []
    part.max_length = limit

    def counted(row):
        made.append(row)
        return pieces(row)

    found = part.tokenised(Dataset.from_list(ROWS), story[1], counted, "key")
    return list(found), len(made)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-9],
        lambda content: b"\0" * len(content),
        lambda content: content[:-200] + b"\0" * 200,
    ],
)
@pytest.mark.parametrize("limit", [64, 6])
def test_damaged_tokens_are_made_anew_with_a_warning(story, cache, caplog, damage, limit):
    first, made = tokens_of(story, limit)
    assert made == 3 and not [line for line in caplog.messages if "damaged" in line]
    for path in cache.glob("*.arrow"):
        path.write_bytes(damage(path.read_bytes()))
    assert tokens_of(story, limit) == (first, 3)
    (said,) = [line for line in caplog.messages if "tokens are made" in line]
    assert str(path) in said and "damaged" in said
    assert tokens_of(story, limit) == (first, 0)


def test_where_tokens_cannot_be_kept_they_are_made_for_this_run(
    story, tmp_path, monkeypatch, caplog
):
    first, _ = tokens_of(story)
    (tmp_path / "file").write_text("")
    for place in ("/proc/nowhere", tmp_path / "file"):
        monkeypatch.setenv("FOURIERFT_CACHE", str(place))
        assert tokens_of(story) == (first, 3)
        assert "the tokens are not kept for later runs: " in caplog.messages[-1]


def test_a_prompt_that_leaves_no_room_is_left_out_and_told(story, cache, monkeypatch):
    part, told = task(), []
    part.max_length = 6
    monkeypatch.setattr(language.log, "warning", lambda text, *values: told.append(text % values))
    kept = part.tokenised(Dataset.from_list(ROWS), story[1], pieces, "short")
    assert 0 < len(kept) < len(ROWS)
    assert all(labels[-1] != IGNORED for labels in kept["labels"])
    (line,) = told
    assert f"{len(ROWS) - len(kept)} of 3 rows" in line and "task.max_length=6" in line


@pytest.mark.parametrize("key", ["max_length", "max_new_tokens", "generation_batch_size"])
def test_settings_that_cannot_work(key):
    part = task()
    setattr(part, key, 0)
    (problem,) = part.problems()
    assert f"task.{key}=0" in problem
