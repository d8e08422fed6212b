"""Runs of other weights, data or code than those that lie in their folder: refused by name."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from experiments.config import compose as compose_module
from experiments.config import load as load_module
from experiments.config.changes import find_plain
from experiments.config.compose import CONF, compose_config, register
from experiments.errors import DataError, RecordError
from experiments.methods import METHODS
from experiments.models import MODELS
from experiments.report import run_state
from experiments.report.run_state import State
from experiments.results import inputs as provenance
from experiments.results import lock
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.record import Record, read_record, write_failure, write_record
from experiments.run import work_folder
from experiments.run.main import run
from experiments.tasks import TASKS

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def inputs(tmp_path):
    """Folders that look like weights and data; nothing here reads what they hold."""
    contents = {
        "model/config.json": "{}",
        "model/model.safetensors": "weights",
        "model/tokenizer.json": "{}",
        "model/tokenizer_config.json": "{}",
        "data/train.parquet": "rows",
        "data/validation.parquet": "other rows",
        "data/notes.txt": "not read",
    }
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def asked(inputs, compose):
    """Function: overrides -> a run of those inputs."""

    def made(*overrides):
        return compose(
            [
                *("model=minilm", "task=sst2", f"output={inputs}/runs"),
                *(f"model.path={inputs}/model", f"task.path={inputs}/data", *overrides),
            ]
        )

    return made


def finish(config, **environment):
    """A finished run's folder, as if it had been trained."""
    place = get_run_dir(config)
    place.mkdir(parents=True)
    chosen = {"name": "accuracy", "select": "best", "value": 0.75, "interval": None}
    record = Record(
        run={"model": "minilm", "task": "sst2", "method": "fourierft", "variant": ""},
        config=to_plain(config),
        parameters={"adapter": 3, "stored_bytes": 12, "head": 0},
        metrics={"primary": chosen},
        time={},
        memory={},
        environment=environment or {"inputs": provenance.describe(config)},
    )
    write_record(place, record)
    return place


def interrupt(config):
    """The folder of a run that was killed."""
    place = get_run_dir(config)
    place.mkdir(parents=True)
    with lock.acquire_lock(place) as held:
        provenance.write_inputs(work_folder.prepare(held, config), config, place, {})
    return place


def weights(root):
    (root / "model/model.safetensors").write_text("weighty")


def shard(root):
    (root / "model/model-00002-of-00002.safetensors").write_text("more")


def settings(root):
    (root / "model/config.json").write_text('{"layer_norm_eps": 1}')


def tokenizer(root):
    (root / "model/tokenizer.json").write_text('{"other": 1}')


def added_token(root):
    (root / "model/added_tokens.json").write_text("{}")


def labels(root):
    (root / "data/train.parquet").write_text("swor")


def scored_rows(root):
    (root / "data/validation.parquet").write_text("yet others")


def data_shard(root):
    (root / "data/train-00001-of-00002.parquet").write_text("more rows")


CHANGES = {
    weights: "weights",
    shard: "weights",
    settings: "model settings",
    tokenizer: "tokenizer",
    added_token: "tokenizer",
    labels: "train data",
    scored_rows: "validation data",
    data_shard: "train data",
}
everywhere = pytest.mark.parametrize("change", CHANGES)


@everywhere
def test_a_finished_run_of_other_inputs_is_refused(change, inputs, asked):
    place = finish(asked())
    before = (place / "metrics.json").read_bytes()
    run(asked())
    change(inputs)
    with pytest.raises(RecordError) as refusal:
        run(asked())
    line, score = refusal.value.problems
    assert score.endswith("best accuracy 0.7500")
    assert line.startswith(f"{CHANGES[change]}: found ") and str(inputs) in line
    assert "finished run" in refusal.value.summary and "force=true" in refusal.value.summary
    assert "output=" in refusal.value.summary
    assert (place / "metrics.json").read_bytes() == before
    assert [item.name for item in place.iterdir()] == ["metrics.json"]


@everywhere
def test_an_interrupted_run_of_other_inputs_is_not_resumed(change, inputs, asked):
    place = interrupt(asked())
    before = {item.name: item.read_bytes() for item in place.iterdir()}
    change(inputs)
    with pytest.raises(RecordError, match="an interrupted run") as refusal:
        run(asked())
    assert refusal.value.problems[0].startswith(CHANGES[change])
    assert {item.name: item.read_bytes() for item in place.iterdir()} == before


@everywhere
def test_a_failed_run_of_other_inputs_is_moved_aside(change, inputs, asked):
    """What was changed may be what mends it, but its checkpoints are of other data."""
    place = interrupt(asked())
    (place / "checkpoints").mkdir()
    with lock.acquire_lock(place) as held:
        write_failure(place, ValueError("the data cannot be read"))
        work_folder.prepare(held, asked())
        assert (place / "checkpoints").is_dir(), "with the same inputs it goes on"
        write_failure(place, ValueError("the data cannot be read"))
        change(inputs)
        work_folder.prepare(held, asked())
    assert (place.with_name("seed=0.replaced-1") / "checkpoints").is_dir()
    assert not (place / "checkpoints").exists() and not (place / provenance.INPUTS_FILE).exists()


@pytest.mark.parametrize("done", [False, True])
def test_a_killed_repetition_of_other_inputs_starts_anew(done, inputs, asked):
    config = asked("force=true")
    place = finish(config) if done else get_run_dir(config)
    place.mkdir(parents=True, exist_ok=True)

    def start():
        with lock.acquire_lock(place) as held:
            work = held.get_visible_path(work_folder.prepare(held, config))
            provenance.write_inputs(work, config, place, {})
        return work

    work = start()
    (work / "checkpoints").mkdir()
    assert start() == work and (work / "checkpoints").is_dir(), "a kill, the same command"
    labels(inputs)
    assert start() == work and not (work / "checkpoints").exists()
    assert (place / "metrics.json").exists() == done


def test_inputs_that_change_while_they_are_read_end_a_run(inputs, asked):
    """Nobody knows which it has read."""
    before = provenance.describe(asked())
    labels(inputs)
    with pytest.raises(DataError, match="(?s)while they were read.*train data"):
        provenance.write_inputs(inputs, asked(), inputs, before)
    assert not (inputs / provenance.INPUTS_FILE).exists()


def test_what_is_downloaded_late_ends_an_interrupted_run(inputs, asked):
    """It was not here to be compared before."""
    place = interrupt(asked())
    labels(inputs)
    with pytest.raises(RecordError, match="an interrupted run"):
        provenance.write_inputs(place, asked(), place, {})


@everywhere
def test_the_status_tells(change, inputs, asked):
    place = finish(asked())
    assert run_state.look(place, asked()).state is State.done
    change(inputs)
    found = run_state.look(place, asked())
    assert found.state is State.failed and CHANGES[change] in found.note
    (place / "metrics.json").unlink()
    place.rmdir()
    shutil.rmtree(inputs / "cache", ignore_errors=True)
    interrupt(asked())
    assert run_state.look(place, asked()).note == ""
    weights(inputs)
    labels(inputs)
    (inputs / "data/train.parquet").write_text("and once more")
    assert "inputs have changed since" in run_state.look(place, asked()).note


def test_the_status_does_not_read_large_files(inputs, asked, monkeypatch):
    monkeypatch.setattr(run_state, "MOST", 3)
    place = finish(asked())
    labels(inputs)
    assert run_state.look(place, asked()).state is State.done


@everywhere
def test_a_finished_run_needs_its_base_model_later_and_nothing_else(change, inputs, asked):
    """To be exported, and to answer more."""
    place = finish(asked())
    record = read_record(place)
    provenance.check_model(place, asked(), record)
    change(inputs)
    if CHANGES[change].endswith("data"):
        provenance.check_model(place, asked(), record)
    else:
        with pytest.raises(RecordError, match=f"(?s)base model.*{CHANGES[change]}: found"):
            provenance.check_model(place, asked(), record)


def test_equal_contents_elsewhere_are_the_same_run(inputs, asked, capsys):
    place = finish(asked())
    for name in ("model", "data"):
        shutil.copytree(inputs / name, inputs / f"copied {name}")
        shutil.rmtree(inputs / name)
    run(asked(f"model.path={inputs}/copied model", f"task.path={inputs}/copied data"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"done before: {place}"
    assert second.startswith("minilm sst2 fourierft:") and second.endswith("accuracy 0.7500")


def test_files_that_nothing_reads_do_not_count(inputs, asked):
    finish(asked())
    (inputs / "data/notes.txt").write_text("changed")
    (inputs / "data/test.parquet").write_text("hidden labels")
    (inputs / "model/README.md").write_text("new")
    run(asked())


@pytest.mark.parametrize("gone", ["model", "data", "data/train.parquet", "model/config.json"])
def test_a_finished_run_stays_finished_where_its_inputs_are_gone(gone, inputs, asked, capsys):
    finish(asked())
    if (inputs / gone).is_dir():
        shutil.rmtree(inputs / gone)
    elif gone.startswith("data"):
        (inputs / gone).unlink()
    else:
        shutil.rmtree(inputs / "model")
        (inputs / "model").write_text("not a folder")
    run(asked())
    assert "done before" in capsys.readouterr().out


def test_without_a_folder_the_hubs_cache_counts(inputs, asked, monkeypatch):
    from huggingface_hub import constants

    config = asked()
    config.model.package = None
    finish(config)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(inputs / "hub"))
    config.model.path = config.task.path = None
    run(config)  # nothing is cached
    for kind, repo, source in (
        ("models", config.model.repo, "model"),
        ("datasets", config.task.repo, "data"),
    ):
        folder = inputs / "hub" / f"{kind}--{repo.replace('/', '--')}"
        shutil.copytree(inputs / source, folder / "snapshots/abc")
        (folder / "refs").mkdir()
        (folder / "refs/main").write_text("abc")
    assert set(provenance.describe(config)) == set(CHANGES.values())
    run(config)
    (folder / "snapshots/abc/train.parquet").write_text("updated")
    with pytest.raises(RecordError, match="train data"):
        run(config)


@pytest.mark.parametrize(
    "environment", [{"commit": "c0ffee"}, {"weights": None}, {"inputs": {"weights": {}}}]
)
def test_records_without_fingerprints_are_as_before(environment, inputs, asked, capsys):
    finish(asked(), **environment)
    weights(inputs)
    run(asked())
    assert "done before" in capsys.readouterr().out


def test_records_of_earlier_versions_know_their_weights(inputs, asked):
    mark = provenance.describe(asked())["weights"]["fingerprint"]
    finish(asked(), weights=mark, data="0" * 64)
    run(asked())
    weights(inputs)
    with pytest.raises(RecordError, match="weights: found"):
        run(asked())


def test_a_damaged_note_is_none(inputs, asked):
    place = interrupt(asked())
    for text in ("", "[]", '{"weights": 3}', '{"weights": {"fingerprint": null}}'):
        (place / provenance.INPUTS_FILE).write_text(text)
        assert provenance.read_inputs(place) == {} and not provenance.have_changed(place, asked())


def test_counting_needs_no_inputs_but_the_sizes_of_a_folder(inputs, compose):
    given = ["model=causal_lm", f"model.path={inputs}/model", "task=none", "mode=count"]
    given += ["method.n=3", "method.alpha=1"]
    config = compose([*given, f"output={inputs}/runs"])
    assert set(provenance.describe(config)) == {"model settings"}
    finish(config)
    weights(inputs)
    run(config)
    settings(inputs)
    with pytest.raises(RecordError, match="model settings"):
        run(config)


METHOD = """
from dataclasses import dataclass
from experiments.methods.fourierft import FourierFT
{extra}

@dataclass(kw_only=True)
class Mine(FourierFT):
    '''A method of somebody else.'''
"""


@pytest.fixture
def private(tmp_path, monkeypatch):
    """Function: name of a module and its files -> its method's class."""
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))

    def load(name, files):
        for path, text in files.items():
            (tmp_path / "elsewhere" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "elsewhere" / path).write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name).Mine

    return load


@pytest.mark.parametrize(
    ("name", "files", "edited"),
    [
        ("mine_alone", {"mine_alone.py": METHOD.format(extra="")}, "mine_alone.py"),
        (
            "mine_package.methods",
            {
                "mine_package/__init__.py": "",
                "mine_package/methods.py": METHOD.format(extra=""),
                "mine_package/scales.py": "SCALE = 1",
            },
            "mine_package/scales.py",
        ),
    ],
)
def test_the_code_of_a_private_method(name, files, edited, private, asked, tmp_path):
    kind = private(name, files)

    def mine():
        config = asked()
        values = {one.name: getattr(config.method, one.name) for one in dataclasses.fields(kind)}
        config.method = kind(**values)
        return config

    assert "code of method fourierft" not in provenance.describe(asked())
    finish(mine())
    run(mine())
    with (tmp_path / "elsewhere" / edited).open("a") as file:
        file.write("\n# another factor\n")
    with pytest.raises(RecordError, match="code of method fourierft: found"):
        run(mine())


def test_a_private_module_within_the_checkout_counts(tmp_path, asked, monkeypatch):
    path = tmp_path / "halved.py"
    path.write_text(METHOD.format(extra=""))
    module = types.ModuleType("experiments.methods.halved")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    config = asked()
    config.method = module.Mine(**dataclasses.asdict(config.method))
    found = provenance.describe(config)["code of method fourierft"]
    assert (found["files"], found["place"]) == (1, str(path))


def test_all_modules_of_this_project_are_known():
    """A new one with a method, a model or a task is entered in `provenance.SHIPPED`."""
    for package, known in provenance.BUILT_IN.items():
        listing = ["git", "ls-files", f"experiments/{package}/*.py"]
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip("no git checkout")
        loaded = {
            kind.__module__
            for one in (METHODS, MODELS, TASKS)
            for which in one
            for kind in which.__mro__
        }
        names = {f"experiments.{package}.{Path(path).stem}" for path in done.stdout.split()}
        expected = {name.rpartition(".")[2] for name in loaded & names}
        assert expected <= set(known.split())


def test_an_edited_recipe_is_refused_with_its_keys(tmp_path, monkeypatch):
    """Values enter a run's configuration, so that these are compared."""
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr(compose_module, "CONF", tmp_path / "conf")
    register()

    def asked():
        find_plain.cache_clear()
        return load_module.load_config(compose_config([f"output={tmp_path}/runs"]))

    finish(asked())
    run(asked())
    recipe = tmp_path / f"conf/recipe/{asked().recipe}/fourierft_mlp.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["train"]["learning_rate"] = 0.5
    recipe.write_text("# @package _global_\n" + yaml.safe_dump(content))
    with pytest.raises(RecordError, match="train.learning_rate: found"):
        run(asked())
    find_plain.cache_clear()


@pytest.mark.slow
def test_two_models_in_folders_of_one_name(compose, tmp_path, data_folder):
    """Trained, refused, resumed, exported: the whole way, with a real model."""
    import torch
    from transformers import AutoModelForCausalLM

    from experiments.commands import export

    for name in ("a", "b"):
        shutil.copytree(data_folder / "models/stories260K", tmp_path / name / "final")
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "b/final")
    with torch.no_grad():
        [value.mul_(0.3) for value in net.parameters()]
    net.save_pretrained(tmp_path / "b/final")
    shutil.copytree(data_folder / "alpaca", tmp_path / "data")
    (tmp_path / "data/train.parquet").unlink()

    def asked(name, *overrides):
        return compose(
            [
                *("model=causal_lm", f"model.path={tmp_path}/{name}/final", "task=alpaca"),
                *("source=none", "method.n=50", "method.alpha=30", "train.learning_rate=3e-2"),
                *("train.max_steps=1", "train.epochs=1", "train.batch_size=4", "train.select=last"),
                *("task.validation_rows=4", "task.train_rows=16", f"task.path={tmp_path}/data"),
                *(f"output={tmp_path}/runs", "train.device=cpu", *overrides),
            ]
        )

    first = run(asked("a"))
    assert set(first.environment["inputs"]) == {*provenance.MODEL, "data"}
    place = get_run_dir(asked("a"))
    assert json.loads((place / provenance.INPUTS_FILE).read_text()) == first.environment["inputs"]
    with pytest.raises(RecordError, match="weights: found"):
        run(asked("b"))
    for name, status in (("b", 1), ("a", 0)):
        words = [str(place), str(tmp_path / f"plain {name}"), f"model.path={tmp_path}/{name}/final"]
        assert export.main(words) == status
    second = run(asked("b", "force=true"))
    one, two = (record.metrics["primary"]["value"] for record in (first, second))
    assert abs(one - two) > 0.5, "they are other models"
