"""Alpaca's rows as they are learnt, and the questions that are answered, on real data."""

import copy
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.errors import ConfigError, DataError
from experiments.results import generations
from experiments.tasks import chat_benchmarks as asking
from experiments.tasks.chat_benchmarks import GumbelSampler
from experiments.tasks.language import IGNORED


@pytest.fixture
def task(compose, data_folder, tmp_path, monkeypatch):
    """Function: overrides -> the task on the real subset of Alpaca."""
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))

    def made(*overrides):
        given = ["task=alpaca", f"task.path={data_folder}/alpaca", "model=stories260k"]
        return compose(["source=ours", "method=fourierft", *given, *overrides]).task

    return made


@pytest.fixture(scope="module")
def tokenizer(data_folder):
    found = AutoTokenizer.from_pretrained(data_folder / "models/stories260K")
    found.pad_token = found.eos_token
    return found


@pytest.fixture(scope="module")
def net(data_folder):
    return AutoModelForCausalLM.from_pretrained(data_folder / "models/stories260K")


def load(part, tokenizer):
    return part.load(tokenizer, part.locate())


def test_formats_are_those_of_the_data(task, data_folder):
    """The column `text` was made with the official prompts."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(data_folder / "alpaca/train.parquet").to_pylist()
    part = task()
    assert len(rows) > 3000
    for row in rows:
        assert "".join(part.pieces(row, None)) == row["text"]


def test_rows(task, tokenizer):
    part = task("task.train_rows=40", "task.validation_rows=20")
    data = load(part, tokenizer)
    assert data.evaluations.keys() == {"validation"} and data.prompts == {}
    assert len(data.train) <= 40 and len(data.evaluations["validation"]) <= 20
    assert data.lengths == [len(row["input_ids"]) for row in data.train]
    assert max(data.lengths) <= 512
    for row in data.train:
        first = next(place for place, label in enumerate(row["labels"]) if label != IGNORED)
        given = tokenizer.decode(row["input_ids"][:first])
        assert "### Instruction:" in given and given.rstrip().endswith("### Response:")
        assert ("### Input:" in given) == ("paired with an input" in given)
        if len(row["input_ids"]) < 512:
            assert row["labels"][-1] == tokenizer.eos_token_id
    held = {tuple(row["input_ids"]) for row in data.evaluations["validation"]}
    assert not held & {tuple(row["input_ids"]) for row in data.train}


def test_the_longest_text_is_a_conversation_with_full_answers(task, tokenizer, data_folder):
    few = ["task.train_rows=10", "task.validation_rows=0", "task.eval_rows=3"]
    part = task(*few, "task.max_new_tokens=9", f"task.questions={data_folder}")
    data = load(part, tokenizer)
    longest = max(
        len(
            tokenizer(part.conversation(row["turns"], [""] * (len(row["turns"]) - 1), tokenizer))[
                "input_ids"
            ]
        )
        + 9 * len(row["turns"])
        for rows in data.prompts.values()
        for row in rows
    )
    assert data.longest == longest > 9 and load(task(*few), tokenizer).longest == 0


def test_all_rows_can_be_trained_on(task, tokenizer):
    part = task("task.train_rows=30", "task.validation_rows=0")
    data = load(part, tokenizer)
    assert data.evaluations == {} and data.train


@pytest.mark.slow
def test_parquet_and_json_hold_the_same(task, tokenizer, data_folder, tmp_path):
    folder = tmp_path / "json"
    folder.mkdir()
    shutil.copy(data_folder / "alpaca/alpaca_data_subset.json", folder)
    few = ["task.train_rows=20", "task.validation_rows=10"]
    one = load(task(*few), tokenizer)
    two = load(task(*few, f"task.path={folder}"), tokenizer)
    assert one.train.to_list() == two.train.to_list()
    assert one.fingerprint != two.fingerprint, "another file"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no train.parquet and no .json", "holds: nothing"]),
        ({"a.json": "[]", "b.json": "[]"}, ["one file", "a.json, b.json"]),
        ({"a.json": "{half"}, ["cannot be read as json"]),
        (
            {"a.json": '{"data": [{"instruction": "x", "input": "", "output": "y"}]}'},
            [
                "a.json: cannot be read",
                "wanted a list of objects, one per row, there is one object with data",
            ],
        ),
        (
            {"a.json": '{"instruction": "x", "input": "", "output": "y"}'},
            ["there is one object with instruction, input, output"],
        ),
        ({"a.json": '"text"'}, ["wanted a list of objects, one per row"]),
        ({"a.json": '[{"instruction": "x"}, ["y"]]'}, ['entry 2 is ["y"]']),
        ({"a.json": "[" * 100000}, ["cannot be read as json"]),
        ({"a.json": f'[{{"instruction": {"9" * 50}}}]'}, ["cannot be read as json"]),
        ({"a.json": "[]"}, ["no column 'instruction'"]),
        ({"a.json": '[{"instruction": "x", "output": "y"}]'}, ["no column 'input'"]),
        ({"a.json": '[{"instruction": 1, "input": "", "output": ""}]'}, ["int64, wanted text"]),
        (
            {"a.json": '[{"instruction": "x", "input": null, "output": ""}]'},
            ["'input' holds null, wanted text"],
        ),
    ],
)
def test_other_folders_are_refused(task, tokenizer, tmp_path, files, words):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(DataError) as caught:
        load(task(f"task.path={folder}"), tokenizer)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_macos_leaves_beside_is_no_data(task, tokenizer, data_folder, tmp_path):
    shutil.copy(data_folder / "alpaca/alpaca_data_subset.json", tmp_path / "rows.json")
    (tmp_path / "._rows.json").write_bytes(b"\0\5\26\7")
    few = ["task.train_rows=20", "task.validation_rows=10", f"task.path={tmp_path}"]
    assert len(load(task(*few), tokenizer).train) == 20


@pytest.mark.parametrize("key", ["train_rows", "validation_rows"])
def test_more_rows_than_there_are(task, tokenizer, key):
    with pytest.raises(DataError, match=f"task.{key}=99999: there are"):
        load(task(f"task.{key}=99999"), tokenizer)


def test_settings_that_cannot_work(task):
    part = task()
    part.prompt, part.further_turn, part.other_temperature = "x", "{input}", -1
    assert len(list(part.problems())) == 4, "{input} is not known there"


@pytest.mark.parametrize("form", ["{instruction} {", "{instruction} {0}", "{instruction} {x.y}"])
def test_braces_that_cannot_be_filled_in_are_refused(task, form):
    part = task()
    part.prompt = part.prompt_with_input = form
    first, *_ = (line for line in part.problems() if "cannot be filled in" in line)
    assert first.startswith(f"task.prompt={form!r}") and "doubled braces" in first
    part = task()
    part.prompt = "{{}} {instruction}"
    assert list(part.problems()) == [] and part.conversation(["a"], [], None) == "{} a"


def test_conversation_repeats_the_form_without_its_opening(task):
    part = task()
    first = part.conversation(["What {is} it?"], [], None)
    assert first == part.prompt.replace("{instruction}", "What {is} it?")
    both = part.conversation(["What {is} it?", "And why?"], ["A {thing}."], None)
    assert both.startswith(first + "A {thing}.")
    assert both.count("Below is an instruction") == 1 and both.count("### Response:\n") == 2
    assert both.endswith("### Instruction:\nAnd why?\n\n### Response:\n")


def test_temperatures_are_those_of_mt_bench(task, data_folder):
    found = asking.read_benchmarks(data_folder)
    assert {name: len(rows) for name, rows in found.items()} == {"mt_bench": 80, "vicuna": 80}
    part = task()
    assert set(part.temperatures) == {row["category"] for row in found["mt_bench"]}
    greedy = Counter(part.temperature(row["category"]) == 0 for row in found["mt_bench"])
    assert greedy == {True: 40, False: 40}
    assert part.temperature("fermi") == 0.7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (None, "no mt_bench/question.jsonl or vicuna_bench/question.jsonl"),
        (b"", "question.jsonl: empty"),
        (b"{", "line 1 is not a JSON object with an integer question_id"),
        (b'{"question_id": 1, "category": "\xff", "turns": ["x"]}', "line 1 is not a JSON object"),
        (b'{"question_id": 1, "turns": ["x"]}', "question 1 needs a category"),
        (b'{"question_id": 1, "category": "x", "turns": []}', "question 1 needs"),
        (b'{"question_id": 1, "category": "x", "turns": ["y"]}\n' * 2, "duplicate question_id 1"),
    ],
)
def test_folders_without_questions_are_refused_before_training(task, tmp_path, line, words):
    if line is not None:
        (tmp_path / "mt_bench").mkdir()
        (tmp_path / "mt_bench/question.jsonl").write_bytes(line)
    with pytest.raises(DataError) as caught:
        task(f"task.questions={tmp_path}").locate()
    assert words in str(caught.value) and f"task.questions={tmp_path}" in str(caught.value)


def answered(task, net, tokenizer, place, questions, seed=0, **changes):
    part = task("task.max_new_tokens=12")
    for key, value in changes.items():
        setattr(part, key, value)
    place.mkdir(parents=True, exist_ok=True)
    part.asker(net, tokenizer, "mt_bench", seed).answer(questions, place)
    return generations.read(generations.get_path(place, "mt_bench"))


def turns(lines):
    return [line["choices"][0]["turns"] for line in lines]


@pytest.fixture(scope="module")
def some(data_folder):
    """Six short questions of MT-Bench, greedy and sampled; the last with one turn only."""
    found = sorted(
        asking.read_benchmarks(data_folder)["mt_bench"], key=lambda row: len(str(row["turns"]))
    )
    kinds = ("writing", "roleplay", "reasoning", "math", "stem", "coding")
    chosen = [next(row for row in found if row["category"] == kind) for kind in kinds]
    return [*chosen[:5], chosen[5] | {"turns": chosen[5]["turns"][:1]}]


def test_answers_are_in_fastchats_format(task, net, tokenizer, some, tmp_path):
    lines = answered(task, net, tokenizer, tmp_path / "m/alpaca/lora/r=4/seed=3", some)
    assert [line["question_id"] for line in lines] == [row["question_id"] for row in some]
    for line, question in zip(lines, some, strict=True):
        assert {"question_id", "answer_id", "model_id", "choices", "tstamp"} <= line.keys()
        (choice,) = line["choices"]
        assert choice["index"] == 0 and len(choice["turns"]) == len(question["turns"])
        assert all(isinstance(text, str) for text in choice["turns"])
        assert line["model_id"] == "m-lora-r=4-seed=3"
        assert line["asked"] == question["turns"] and line["category"] == question["category"]
        assert line["truncated"] == [False] * len(question["turns"])
    assert len({line["answer_id"] for line in lines}) == len(lines)


def test_the_second_prompt_holds_the_first_answer(
    task, net, tokenizer, some, tmp_path, monkeypatch
):
    given, original = [], asking.generate_continuations

    def watched(net, processor, prompts, **options):
        given.append([processor.decode(prompt) for prompt in prompts])
        return original(net, processor, prompts, **options)

    monkeypatch.setattr(asking, "generate_continuations", watched)
    lines = answered(task, net, tokenizer, tmp_path, some[:2])
    assert len(given) == 2
    for text, line, question in zip(given[1], lines, some, strict=False):
        answer = line["choices"][0]["turns"][0]
        assert 0 < text.find(question["turns"][0][:15]) < text.find(question["turns"][1][:15])
        assert answer.split("\n")[0][:10] in text


@pytest.mark.slow
def test_texts_depend_on_seed_and_not_on_batches(task, net, tokenizer, some, tmp_path):
    one = answered(task, net, tokenizer, tmp_path / "a", some, generation_batch_size=1)
    two = answered(task, net, tokenizer, tmp_path / "b", some, generation_batch_size=4)
    other = answered(task, net, tokenizer, tmp_path / "c", some, seed=1)
    assert turns(one) == turns(two)
    changed = [a != b for a, b in zip(turns(one), turns(other), strict=True)]
    sampled = [task().temperature(row["category"]) > 0.5 for row in some]
    greedy = [task().temperature(row["category"]) == 0 for row in some]
    assert any(sampled) and any(greedy)
    assert all(change for change, draws in zip(changed, sampled, strict=True) if draws)
    assert not any(change for change, draws in zip(changed, greedy, strict=True) if draws)


@pytest.mark.slow
def test_a_killed_call_goes_on(task, net, tokenizer, some, tmp_path, monkeypatch):
    """`kept` lines were written: turn-1 answers, or all of these and some second turns."""
    whole = answered(task, net, tokenizer, tmp_path / "whole", some)
    for kept in (0, 1, 8, 11):
        place = tmp_path / f"killed after {kept}"
        with monkeypatch.context() as patch:
            patch.setattr(generations, "append", killed_after(kept))
            if kept < 11:  # of six questions, five of them with two turns
                with pytest.raises(KeyboardInterrupt):
                    answered(task, net, tokenizer, place, some)
            else:
                answered(task, net, tokenizer, place, some)
        counted, continued = [], asking.generate_continuations

        def counting(net, processor, prompts, counted=counted, continued=continued, **options):
            counted.append(len(prompts))
            return continued(net, processor, prompts, **options)

        with monkeypatch.context() as patch:
            patch.setattr(asking, "generate_continuations", counting)
            again = answered(task, net, tokenizer, place, some)
        assert sum(counted) == 11 - kept, "answered twice, or not at all"
        assert turns(again) == turns(whole)
        for one, two in zip(whole, again, strict=True):
            assert {**one, "tstamp": 0, "model_id": "", "answer_id": ""} == {
                **two,
                "tstamp": 0,
                "model_id": "",
                "answer_id": "",
            }
        assert answered(task, net, tokenizer, place, some) == again


def killed_after(kept):
    """`generations.append` that is killed in the middle of the line behind so many."""
    written, original = [], generations.append

    def append(path, lines):
        for line in lines:
            if len(written) == kept:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write('{"half')  # what a kill leaves
                raise KeyboardInterrupt
            written.append(line)
            original(path, [line])

    return append


def test_what_is_damaged_or_worded_otherwise_is_answered_again(
    task, net, tokenizer, some, tmp_path, monkeypatch
):
    """And nothing else; answers to questions that are not asked now stay in the file."""
    whole = answered(task, net, tokenizer, tmp_path, some[2:])
    path = generations.get_path(tmp_path, "mt_bench")
    broken = [whole[0] | {"choices": []}, whole[1] | {"asked": ["Another question?", "So?"]}]
    other = whole[2] | {"question_id": 9999}
    lines = [json.dumps(line) for line in (*broken, other, *whole[2:])]
    path.write_text("\n".join(["{oops", *lines, ""]))
    open_ = asking.find_open_questions(path, some[2:])
    assert [row["question_id"] for row in open_] == [line["question_id"] for line in whole[:2]]
    lines = []
    monkeypatch.setattr(asking.log, "warning", lambda form, *given: lines.append(form % given))
    again = answered(task, net, tokenizer, tmp_path, some[2:])
    assert turns(again[:-1]) == turns(whole) and again[-1] == other and again[2:-1] == whole[2:]
    told = "\n".join(lines)
    assert "line 1: damaged, not JSON" in told and "answered again" in told
    assert f"question {whole[0]['question_id']}" in told
    assert f"other words than before, answered again: {whole[1]['question_id']}" in told


def test_a_conversation_that_is_too_long_loses_its_beginning(task, net, tokenizer, some, tmp_path):
    long = some[0] | {"turns": ["word " * 700, "And now?"]}
    lines = answered(task, net, tokenizer, tmp_path, [long, some[4]])
    assert [line["truncated"] for line in lines] == [[True, True], [False, False]]
    assert all(len(line["choices"][0]["turns"]) == 2 for line in lines)


def test_prompts_and_answers_share_what_the_model_reads(
    task, net, tokenizer, some, tmp_path, monkeypatch
):
    seen = []

    def watched(net, processor, prompts, **options):
        seen.append((max(map(len, prompts)), options["max_new_tokens"], prompts))
        return iter([[(place, "x") for place in range(len(prompts))]])

    monkeypatch.setattr(asking, "generate_continuations", watched)
    long = some[0] | {"turns": ["word " * 700]}
    answered(task, net, tokenizer, tmp_path, [long], max_new_tokens=1024)
    ((width, new, prompts),) = seen
    assert (width, new) == (256, 256) and prompts[0][0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompts[0][-8:]).rstrip().endswith("Response:")


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_sampling_draws_from_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    for temperature in (0.7, 2.0):
        sampler = GumbelSampler([temperature], seeded(5))
        drawn = [int(sampler(logits.clone()).argmax()) for _ in range(4000)]
        found = np.bincount(drawn, minlength=4) / len(drawn)
        expected = torch.softmax(logits[0] / temperature, -1).numpy()
        assert np.abs(found - expected).max() < 0.03


def test_sampling_leaves_greedy_rows_as_they_are():
    logits = torch.randn(2, 9)
    steered = GumbelSampler([0.0, 1.0], seeded(1, 2))(logits.clone())
    assert torch.equal(steered[0], logits[0]) and not torch.equal(steered[1], logits[1])


def test_noise_of_all_rows_is_that_of_each_alone(monkeypatch):
    """Whatever the size of the batch; it comes in one copy a token, not one a row."""
    temperatures, seeds = [0.7, 0.0, 1.3, 0.1], [1, 2, 3, 4]
    many = GumbelSampler(temperatures, seeded(*seeds))
    alone = [GumbelSampler([t], seeded(seed)) for t, seed in zip(temperatures, seeds, strict=True)]
    drawn = seeded(*seeds)
    copied, original = [], torch.Tensor.to
    for _ in range(3):
        logits = torch.randn(4, 101, dtype=torch.float16)
        with monkeypatch.context() as patch:
            patch.setattr(
                torch.Tensor, "to", lambda *a, **k: copied.append(a[0].shape) or original(*a, **k)
            )
            found = many(logits.clone())
        for row, sampler in enumerate(alone):
            assert torch.equal(found[row], sampler(logits[row : row + 1].clone())[0])
            noise = torch.empty(101).exponential_(generator=drawn[row]).log()
            if temperatures[row]:
                assert torch.equal(found[row], logits[row].float() / temperatures[row] - noise)
    assert copied == [logits.shape] * 3


def test_questions_are_no_part_of_what_a_run_is(compose, data_folder):
    from experiments.config.run_config import Config
    from experiments.results.identity import to_plain

    base = ["task=alpaca", "model=stories260k", "method=fourierft"]
    one, two = compose(base), compose([*base, f"task.questions={data_folder}"])
    assert Config.identify(to_plain(one)) == Config.identify(to_plain(two))
    assert one.variant == two.variant == ""


def test_hub_file_is_named(compose):
    for name, repo in (("alpaca", "tatsu-lab/alpaca"), ("alpaca_cleaned", "yahma/alpaca-cleaned")):
        part = compose([f"task={name}", "model=stories260k", "method=fourierft"]).task
        assert (part.repo, part.name) == (repo, name)
        assert json.dumps(part.prompt).count("{instruction}") == 1


CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_chat_template_formats_rows_and_conversations(task, tokenizer):
    part = task("task.chat_template=true", "task.train_rows=4", "task.validation_rows=4")
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = CHAT
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert part.pieces(row, chat) == ("<|user|>Add.\n\n1 2</s><|assistant|>", "3")
    assert part.pieces(row | {"input": " "}, chat)[0] == "<|user|>Add.</s><|assistant|>"
    talk = part.conversation(["a", "b"], ["c"], chat)
    assert talk == "<|user|>a</s><|assistant|>c</s><|user|>b</s><|assistant|>"
    data = load(part, chat)
    plain = load(task("task.train_rows=4", "task.validation_rows=4"), chat)
    assert chat.decode(data.train[0]["input_ids"]).find("<|user|>") >= 0
    assert data.train[0]["input_ids"] != plain.train[0]["input_ids"]
    chat.chat_template = "<s>" + CHAT  # the tokenizer begins every text with it, too
    tokens = chat(part.conversation(["a"], [], chat))["input_ids"]
    assert tokens.count(chat.bos_token_id) == 1


def test_chat_template_that_is_missing_is_one_line(task, tokenizer):
    part = task("task.chat_template=true", "task.train_rows=4", "task.validation_rows=4")
    with pytest.raises(ConfigError, match="task.chat_template=true: the model's tokenizer refuses"):
        load(part, tokenizer)
