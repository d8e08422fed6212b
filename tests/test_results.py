"""Run folders: what a run is, where it lives, when it is done, and what is never lost."""

import copy
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest
import yaml

from experiments.config.run_config import Config
from experiments.errors import DataError, RecordError
from experiments.files import write_atomically
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.record import SCHEMA, Record, read_record, write_failure, write_record
from experiments.results.run_folder import find_record

ROOT = Path(__file__).resolve().parent.parent
TOY = ["task=toy", "model=mlp", "method=fourierft"]
LOCAL = {
    "force": True,
    "offline": True,
    "output": "elsewhere",
    "experiment": "figure7",
    "model.path": "/m",
    "task.path": "/d",
    "train.accumulation": 2,
    "train.eval_batch_size": 7,
    "train.checkpoint_every": 0,
    "train.device": "cpu",
    "tracking.name": "wandb",
}
SCIENTIFIC = {
    "seed": 3,
    "recipe": "paper",
    "profile": "smoke",
    "model.width": 32,
    "model.pretrained": True,
    "task.noise": 0.7,
    "task.metrics": ["f1"],
    "method.n": 5,
    "method.alpha": 1.25,
    "method.frequency_bias.center": 4.0,
    "train.learning_rate": 0.125,
    "train.betas": [0.8, 0.9],
    "train.batch_size": 16,
}


@pytest.fixture
def config(compose, tmp_path):
    return changed(compose(TOY), {"output": str(tmp_path / "outputs")})


def changed(config, values):
    config = copy.deepcopy(config)
    for key, value in values.items():
        *path, name = key.split(".")
        part = config
        for step in path:
            part = getattr(part, step)
        assert hasattr(part, name), key
        setattr(part, name, value)
    return config


def record(config, **values):
    given = {
        "run": {"model": "mlp", "task": "toy", "method": "fourierft"},
        "config": to_plain(config),
        "parameters": {"adapter": 1, "head": 0, "base": 2, "stored_bytes": 4},
        "metrics": {"primary": {"value": 0.5}},
        "time": {},
        "memory": {},
        "environment": {},
    }
    return Record(**given | values)


def write_configuration(folder, config):
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))


@pytest.fixture
def place(config):
    """A finished run."""
    folder = get_run_dir(config)
    folder.mkdir(parents=True)
    write_configuration(folder, config)
    (folder / "history.jsonl").write_text("{}\n")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_bytes(b"1234")
    write_record(folder, record(config))
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("key", LOCAL)
def test_local_keys_are_not_identity(config, key):
    other = changed(config, {key: LOCAL[key]})
    assert Config.identify(to_plain(other)) == Config.identify(to_plain(config))


@pytest.mark.parametrize("key", SCIENTIFIC)
def test_scientific_keys_are_identity(config, key):
    other = changed(config, {key: SCIENTIFIC[key]})
    there, here = (Config.identify(to_plain(each)) for each in (config, other))
    assert {name for name in there.keys() | here.keys() if there.get(name) != here.get(name)} == {
        key
    }


def test_identity_survives_the_file(config, tmp_path):
    config = changed(config, {"train.learning_rate": 1e-5, "train.epsilon": 1e-8})
    write_configuration(tmp_path, config)
    found = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert Config.identify(found) == Config.identify(to_plain(config))


def test_folder_says_what_the_run_is(config):
    folder = get_run_dir(changed(config, {"output": "o", "seed": 4}))
    assert folder == Path("o/mlp/toy/fourierft/seed=4")
    folder = get_run_dir(changed(config, {"output": "o", "variant": "n=5"}))
    assert folder == Path("o/mlp/toy/fourierft/n=5/seed=0")


def test_plain_is_json():
    class Kind(Enum):
        one = "1"

    value = {"kind": Kind.one, "place": Path("x"), 3: (1, 2), "none": None}
    assert to_plain(value) == {"kind": "1", "place": "x", "3": [1, 2], "none": None}


def test_record_round_trip(place, config):
    assert read_record(place) == record(config)


def test_no_record_yet(tmp_path, config):
    assert find_record(tmp_path, config) is None
    assert list(tmp_path.iterdir()) == []


def test_same_run_again_is_found_and_untouched(place, config):
    before = contents(place)
    found = find_record(place, changed(config, {"train.device": "cpu", "offline": True}))
    assert found == record(config)
    assert contents(place) == before


def test_other_run_is_refused_with_every_difference(place, config):
    before = contents(place)
    other = changed(config, {"method.n": 5, "train.learning_rate": 0.125, "train.device": "cpu"})
    with pytest.raises(RecordError) as caught:
        find_record(place, other)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "method.n",
        "train.learning_rate",
    ]
    assert f"found {config.method.n}, expected 5" in str(caught.value)
    assert str(place) in str(caught.value) and "force=true" in str(caught.value)
    assert contents(place) == before


def test_key_that_only_one_side_knows_differs_unless_it_is_null(place, config):
    """A field that was added or dropped since then, and says nothing, keeps old records valid."""
    path = place / "metrics.json"
    found = json.loads(path.read_text())
    found["config"]["method"]["old_field"] = None
    path.write_text(json.dumps(found))
    assert find_record(place, config) is not None
    found["config"]["method"]["old_field"] = 3
    path.write_text(json.dumps(found))
    with pytest.raises(RecordError, match="method.old_field"):
        find_record(place, config)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not JSON"),
        (b'{"schema": 1, "run"', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1]", "schema"),
        (b'{"schema": 99}', "schema 99"),
        (
            b'{"schema": 1, "run": {}, "config": {}}',
            "without parameters, time, memory, environment",
        ),
    ],
)
def test_damaged_record_is_named(place, config, content, word):
    (place / "metrics.json").write_bytes(content)
    with pytest.raises(RecordError) as caught:
        find_record(place, config)
    assert str(place / "metrics.json") in str(caught.value) and word in str(caught.value)


def test_record_with_a_wrong_shape_is_damaged(place, config):
    found = json.loads((place / "metrics.json").read_text())
    (place / "metrics.json").write_text(json.dumps(found | {"config": "none"}))
    with pytest.raises(RecordError, match="config"):
        find_record(place, config)


def test_record_of_a_later_field_is_read(place, config):
    found = json.loads((place / "metrics.json").read_text())
    (place / "metrics.json").write_text(json.dumps(found | {"new": 1}))
    assert read_record(place) == record(config)


def test_unfinished_run_is_continued_by_itself_alone(place, config):
    (place / "metrics.json").unlink()
    assert find_record(place, config) is None
    with pytest.raises(RecordError, match="unfinished"):
        find_record(place, changed(config, {"method.n": 5}))


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"just words", b""])
def test_damaged_configuration_is_named(place, config, content):
    (place / "metrics.json").unlink()
    (place / "config.yaml").write_bytes(content)
    with pytest.raises(RecordError, match="config.yaml: damaged"):
        find_record(place, config)


def test_numbers_that_json_lacks_become_null(place, config):
    """A run that diverged after hours is still recorded, readable by any JSON parser."""
    broken = {
        "primary": {"value": math.nan, "interval": [math.nan, math.inf]},
        "best": {"scores": {"validation": {"f1": -math.inf}}, "steps": (1, math.nan)},
    }
    write_record(place, record(config, metrics=broken, preflight={"reach": math.inf}))

    def refuse(word):
        raise AssertionError(f"{word} in metrics.json")

    found = json.loads((place / "metrics.json").read_text(), parse_constant=refuse)
    assert found["metrics"]["primary"] == {"value": None, "interval": [None, None]}
    assert found["metrics"]["best"] == {"scores": {"validation": {"f1": None}}, "steps": [1, None]}
    assert found["preflight"] == {"reach": None}


def test_record_can_be_understood_alone(place):
    found = json.loads((place / "metrics.json").read_text())
    assert {entry.name for entry in dataclasses.fields(Record)} == set(found)
    assert (found["schema"], found["status"]) == (SCHEMA, "finished")


def test_failure_of_the_user_has_no_traceback(tmp_path):
    write_failure(tmp_path, DataError("task.path=x: wrong", ["no train.parquet"]))
    found = json.loads((tmp_path / "failure.json").read_text())
    assert found["traceback"] is None and found["error"] == "DataError"
    assert "no train.parquet" in found["message"] and found["status"] == "failed"


def test_failure_of_the_program_has_its_traceback(tmp_path):
    try:
        {}["nowhere"]
    except KeyError as error:
        write_failure(tmp_path, error)
    found = json.loads((tmp_path / "failure.json").read_text())
    assert found["error"] == "KeyError"
    assert "test_failure_of_the_program_has_its_traceback" in found["traceback"]


WRITER = """
import sys
from pathlib import Path
from experiments.files import write_atomically
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_atomically(path, f"{number}\\n" * 20_000)
    if number == 1:
        print("started", flush=True)
"""


def test_kill_while_writing_leaves_a_whole_file(tmp_path):
    path = tmp_path / "metrics.json"
    for round_ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "started\n"
        try:
            writer.wait(timeout=0.01 + 0.013 * round_)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        writer.wait()
        lines = path.read_text().splitlines()
        assert len(lines) == 20_000 and len(set(lines)) == 1


def test_write_goes_through_a_draft(tmp_path, monkeypatch):
    """Until the last step the old text stands; the draft is on the disk before that step."""
    path, steps = tmp_path / "x.json", []
    path.write_text("old")
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        steps.append(("sync", path.read_text()))
        fsync(descriptor)

    def replaced(draft, target):
        steps.append(("replace", Path(draft).read_text(), path.read_text()))
        assert Path(draft).parent == tmp_path  # another file system could not replace in one step
        replace(draft, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomically(path, "new")
    assert steps == [("sync", "old"), ("replace", "new", "old")]
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["x.json"]
