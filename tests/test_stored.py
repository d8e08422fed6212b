"""Files as others may have left them: nothing waits, nothing grows, one sentence each."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import yaml
from limits import limit
from records import scored

from experiments.commands import compare_answers, export
from experiments.commands.results import main as command
from experiments.errors import RecordError, UserError
from experiments.judge.__main__ import main as judge
from experiments.judge.journal import Journal
from experiments.report import run_state
from experiments.report.comparison import run_index
from experiments.report.pages import registry
from experiments.report.render import text
from experiments.results import generations, predictions, stored
from experiments.results.history import read_history
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.run_folder import find_record
from experiments.run.main import run

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
DEEP = "[" * 100_000 + "]" * 100_000


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def directory(path):
    path.mkdir()


def dangling(path):
    path.symlink_to("nowhere")


def loop(path):
    path.symlink_to(path.name)


def socket(path):
    os.mknod(path, 0o140644)


HOSTILE = (pipe, device, directory, dangling, loop, socket)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_only_regular_files_are_read(tmp_path, hostile):
    path = tmp_path / "file"
    hostile(path)
    for read in (stored.read_bytes, stored.read_text, stored.read_json, stored.read_yaml):
        with limit(5), pytest.raises(RecordError, match=f"^{path}: damaged, ") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_link_to_a_file_is_the_file(tmp_path):
    (tmp_path / "file").write_text("[1]")
    (tmp_path / "link").symlink_to("file")
    assert stored.read_json(tmp_path / "link") == [1]


def test_files_have_a_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert stored.read_bytes(path, 5) == b"12345"
    with pytest.raises(RecordError, match=r"5 bytes \(at most 4\)"):
        stored.read_bytes(path, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "an alias"),
        (DEEP, "nested too deeply"),
        ("a: [1", "not YAML"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("2001-99-99", "not YAML"),
        ("? [1]\n: 2", "not YAML"),
        ("x: \x1b", "not YAML"),
    ],
)
def test_yaml_that_no_run_writes(tmp_path, content, reason):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with limit(20), pytest.raises(RecordError, match=reason):
        stored.read_yaml(path)


def test_yaml_as_runs_write_it_is_read(tmp_path, compose):
    config = compose(["model=vit_base", "task=dtd", "method=lora"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_plain(config), sort_keys=False))
    assert stored.read_yaml(path) == to_plain(config)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (DEEP.encode(), "nested too deeply"),
        (b"[" * 300 + b"]" * 300, "nested too deeply"),
        (b"1" * 5000, "not JSON"),
    ],
)
def test_json_that_no_run_writes(tmp_path, content, reason):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=reason):
        stored.read_json(path)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, {"b": float("nan")}]}, "a.1.b is nan"),
        ({"a": float("inf")}, "a is inf"),
        ({"a": 1e101}, "a is 1e+101"),
        ({"a": -(2**64)}, "a is an integer of 65 bits"),
        ({"a": "\ud800"}, "a holds the character '\\ud800'"),
        ({"a": "\x1b[2J"}, "a holds the character '\\x1b'"),
        ({"\x07": 1}, "it has the key '\\x07'"),
        ({"a": "ÿ漢 \t\n"}, None),
        ({"a": [True, None, 2**63, -1e100, ""]}, None),
    ],
)
def test_bounds_of_what_is_counted(value, told):
    assert list(stored.find_excesses(value)) == ([] if told is None else [told])


def test_nesting_has_a_bound():
    value = 1
    for _ in range(stored.MAX_DEPTH):
        value = [value]
    assert not list(stored.find_excesses(value))
    [told] = stored.find_excesses([value])
    assert "nested more than 32 deep" in told


def test_text_for_terminals_and_files():
    assert stored.make_printable("a\nb\x1b[2J\ud800 ÿ") == "a b\\x1b[2J\\ud800 ÿ"


# Every file of a run folder in turn, through every command


FILES = (
    *("metrics.json", "config.yaml", "history.jsonl", "failure.json", "lock.json", "regions.npz"),
    *("generations/mt_bench.jsonl", "judgements/mt_bench/gpt-4.json"),
    *("judgements/mt_bench/gpt-4.jsonl", "adapter/adapter_config.json"),
    "adapter/adapter_model.safetensors",
)
QUESTION = {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}


@pytest.fixture(scope="module")
def toy(tmp_path_factory, compose):
    """A real run of the toy with answers and a judge's grade, and its configuration."""
    config = compose(["model=mlp", "task=toy", "method=lora", "train.epochs=20"])
    config.output = str(tmp_path_factory.mktemp("toy"))
    run(config)
    place = get_run_dir(config)
    choice = {"index": 0, "turns": ["One.", "Two."]}
    line = {"question_id": 81, "model_id": "m", "choices": [choice], "category": "writing"}
    generations.append(generations.get_path(place, "mt_bench"), [line | {"asked": ["a", "b"]}])
    grades = place / "judgements/mt_bench"
    grades.mkdir(parents=True)
    content = {"scores": {"average": 7.0}, "judge": {"asked": "gpt-4"}}
    (grades / "gpt-4.json").write_text(json.dumps(content))
    (grades / "gpt-4.jsonl").write_text("{}\n")
    return place, config


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_files_in_run_folders(toy, tmp_path, compose, hostile, capsys):
    """Every command ends, with a sentence where it needs the file; the neighbours stay counted."""
    source, config = toy
    root = tmp_path / "outputs/mlp/toy/lora"
    record = json.loads((source / "metrics.json").read_text())
    record["run"]["variant"] = ""  # else it is none of Figure 7's, which reads histories
    first = next(source.glob("predictions/*.npz")).relative_to(source).as_posix()
    names = ["nothing", *FILES, first]
    for number, name in enumerate(names):
        place = root / f"seed={number}"
        shutil.copytree(source, place)
        record["run"]["seed"] = record["config"]["seed"] = number
        (place / "metrics.json").write_text(json.dumps(record))
        if (place / name).is_file():
            (place / name).unlink()
        (place / name).parent.mkdir(exist_ok=True)
        hostile(place / name)
    folder = root.parents[2]
    questions = tmp_path / "questions/mt_bench"
    questions.mkdir(parents=True)
    (questions / "question.jsonl").write_text(json.dumps(QUESTION) + "\n")

    with limit(60):
        found = run_index.collect(folder)
        written = [text.markdown(registry.build(name, found)) for name in registry.names()]
    assert len(found.runs) == len(names) - 1
    assert f"`{root / 'seed=1/metrics.json'}`" in written[-1]
    assert (f"`{root / 'seed=3/history.jsonl'}`" in written[-1]) == (
        hostile not in (dangling, loop)
    )

    with limit(60):
        assert command(["verify", str(folder)]) == 1
    captured = capsys.readouterr()
    compared = ("metrics.json", "history.jsonl", first, *FILES[-2:])
    assert f"{len(names) - len(compared)} of {len(names)} trained records match" in captured.out
    for number, name in enumerate(names):
        line = f"{root / f'seed={number}'}: does not match\n"
        assert captured.err.count(line) == (name in compared)
    with limit(60):
        assert command(["export", str(folder)]) == 1
    arguments = [
        *("--all", str(folder), "--questions", str(questions.parent), "--model", "gpt-4"),
        *("--dry-run", "--base-url", "http://127.0.0.1:9", "--prompts", "ours"),
    ]
    with limit(60):
        assert judge(arguments) in (0, 1)
    for number, name in enumerate(names):
        place = root / f"seed={number}"
        config.seed = number
        with limit(20):
            run_state.look(place, config)
            if name == "metrics.json" and (place / name).exists():
                with pytest.raises(RecordError, match=r"metrics\.json: damaged"):
                    find_record(place, config)
            compare_answers.main([str(place), "--out", str(tmp_path / "page.html")])
            assert export.main([str(place), str(tmp_path / "exported")]) == 1
            for read in (read_history, Journal(place / FILES[-3]).read):
                try:
                    read(*([place] if read is read_history else []))
                except UserError:
                    pass
        said = capsys.readouterr().err
        assert "Traceback" not in said


@pytest.mark.parametrize("hostile", [pipe, device, directory])
def test_predictions(tmp_path, hostile):
    (tmp_path / "predictions").mkdir()
    hostile(tmp_path / "predictions/validation-0000010.npz")
    with limit(5), pytest.raises(RecordError, match="not a regular file"):
        predictions.load(tmp_path, "validation")


def test_folders_that_no_page_can_name(tmp_path, compose, capsys):
    config = to_plain(compose(["model=mlp", "task=toy", "method=lora"]))
    place = scored(tmp_path, config, 0, 0.5, place=tmp_path / os.fsdecode(b"\xff<b>\x1b"))
    found = run_index.collect(tmp_path)
    assert not found.runs
    [record] = found.excluded
    assert record.path.parent == place and "\\udcff<b>\\x1b" in str(record)
    assert "&lt;b>" not in (shown := text.markdown(registry.build("troubles", found)))
    shown.encode()
    command(["verify", str(tmp_path)])
    capsys.readouterr().err.encode()
