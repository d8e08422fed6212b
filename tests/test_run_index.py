"""Bad input: whatever lies below the output folder, it is named once, and the rest is shown."""

import json
import shutil

import pytest
from records import scored

from experiments.report.comparison import run_index
from experiments.report.pages import registry
from experiments.report.render import text
from experiments.results.identity import to_plain
from experiments.results.record import write_failure


@pytest.fixture(scope="module")
def config(compose):
    return to_plain(compose(["model=roberta_base", "task=cola", "method=fourierft"]))


def kinds(root):
    return [record.kind for record in run_index.collect(root).excluded]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"schema": 1, "sta', "damaged"),
        (b"", "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[1, 2]", "foreign"),
        (b'{"accuracy": 0.9}', "foreign"),
        (b'{"schema": 99}', "foreign"),
        (b'{"schema": "x"}', "foreign"),
        (b'{"schema": 0, "run": {}}', "older schema"),
        (b'{"schema": 1}', "damaged"),
    ],
)
def test_unreadable_records(tmp_path, config, content, kind):
    good = scored(tmp_path, config, 0, 0.6)
    bad = scored(tmp_path, config, 1, 0.6)
    (bad / "metrics.json").write_bytes(content)
    found = run_index.collect(tmp_path)
    assert [run.run_dir for run in found.runs] == [good]
    [record] = found.excluded
    assert (record.kind, record.path) == (kind, bad / "metrics.json") and record.reason


@pytest.mark.parametrize(
    ("section", "value", "kind"),
    [
        ("parameters", {"adapter": "many", "stored_bytes": 1}, "damaged"),
        ("run", {"model": None, "task": "cola", "method": "lora"}, "damaged"),
        ("metrics", [0.9], "damaged"),
        ("metrics", {"primary": [0.9]}, "damaged"),
        ("config", {"model": "roberta"}, "damaged"),
    ],
)
def test_records_without_the_shape_that_tables_need(tmp_path, config, section, value, kind):
    place = scored(tmp_path, config, 0, 0.6)
    record = json.loads((place / "metrics.json").read_text())
    (place / "metrics.json").write_text(json.dumps(record | {section: value}))
    assert kinds(tmp_path) == [kind]


def test_record_that_contradicts_itself(tmp_path, config):
    place = scored(tmp_path, config, 0, 0.6)
    record = json.loads((place / "metrics.json").read_text())
    record["run"]["seed"] = 5
    (place / "metrics.json").write_text(json.dumps(record))
    found = run_index.collect(tmp_path)
    assert not found.runs and found.excluded[0].kind == "contradictory"
    assert "run.seed is 5, config.seed is 0" in found.excluded[0].reason


def test_copies_count_once(tmp_path, config):
    place = scored(tmp_path, config, 0, 0.6)
    shutil.copytree(place, tmp_path / "z" / "seed=0")
    found = run_index.collect(tmp_path)
    assert [run.run_dir for run in found.runs] == [place]
    assert [record.kind for record in found.excluded] == ["duplicate"]


def test_two_results_of_one_run_both_go(tmp_path, config):
    scored(tmp_path, config, 0, 0.6)
    scored(tmp_path, config, 0, 0.7, place=tmp_path / "z" / "seed=0")
    scored(tmp_path, config, 1, 0.5)
    found = run_index.collect(tmp_path)
    assert [run.seed for run in found.runs] == [1]
    assert [record.kind for record in found.excluded] == ["contradictory"] * 2
    assert {"z/seed=0" in record.reason for record in found.excluded} == {True, False}


def test_the_same_settings_with_other_inputs_are_told_as_such(tmp_path, config):
    scored(tmp_path, config, 0, 0.6, inputs={"weights": "a" * 64, "train data": "b" * 64})
    other = {"weights": "c" * 64, "train data": "b" * 64}
    scored(tmp_path, config, 0, 0.7, inputs=other, place=tmp_path / "z" / "seed=0")
    found = run_index.collect(tmp_path)
    assert not found.runs and [record.kind for record in found.excluded] == ["contradictory"] * 2
    assert all("with other weights; neither counts" in one.reason for one in found.excluded)


def test_failed_and_replaced_runs(tmp_path, config):
    place = scored(tmp_path, config, 0, 0.6)
    write_failure(tmp_path, ValueError("out of\nluck"))
    shutil.copytree(place, place.with_name("seed=0.replaced-1"))
    shutil.copytree(place, place.with_name("seed=0.failed-2"))
    found = run_index.collect(tmp_path)
    assert len(found.runs) == 1
    [record] = found.excluded
    assert record.kind == "failed" and "ValueError: out of luck" in record.reason


def test_damaged_grades_are_named(tmp_path, config):
    place = scored(tmp_path, config, 0, 0.6)
    folder = place / "judgements" / "mt_bench"
    folder.mkdir(parents=True)
    (folder / "gpt-4.json").write_text(
        json.dumps({"judge": {"asked": "gpt-4"}, "scores": {"average": 5.5}})
    )
    (folder / "other.json").write_text("{")
    found = run_index.collect(tmp_path)
    [grade] = found.judged(found.runs[0], "mt_bench")
    assert (grade["judge"], grade["average"]) == ("gpt-4", 5.5)
    assert found.excluded[0].path == folder / "other.json"


def test_the_last_page_lists_all_of_it(tmp_path, config):
    place = scored(tmp_path, config, 0, 0.6)
    shutil.copytree(place, tmp_path / "z" / "seed=0")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/metrics.json").write_text("{}")
    page = registry.build("troubles", run_index.collect(tmp_path))
    shown = text.markdown(page)
    assert page.summary == "Left out: 1 foreign, 1 duplicate."
    assert str(tmp_path / "foreign/metrics.json") in shown and "the same run as" in shown


def test_scores_of_other_metrics_and_splits(tmp_path, config):
    scored(tmp_path, config, 0, 0.6, last=0.5)
    [run] = run_index.collect(tmp_path).runs
    assert run.score("last", "matthews") == 0.5
    assert run.score("last", "matthews", "validation") == 0.5
    assert run.score("last", "accuracy") is None
    assert run.score("last", "matthews", "test") is None
    assert text.markdown(registry.build("runs", run_index.collect(tmp_path)))
