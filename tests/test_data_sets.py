"""Tables 7 and 8: data sets as printed, as loaded, as counted."""

import os
from pathlib import Path

import pytest
import records
from records import scored

from experiments.report.comparison import reference, run_index
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import data_sets, registry
from experiments.report.render import text
from experiments.results.identity import to_plain

DATA = Path(os.environ.get("FOURIERFT_DATA", "../shared/data")) / "glue"


def sizes(name, index):
    return {(one.task, one.what): one for one in data_sets.read_sizes(reference.load(name), index)}


def test_printed_sizes_beside_counted_ones(tmp_path):
    found = sizes("table7", RunIndex(tmp_path))
    wrong = [key for key, one in found.items() if one.verdict is Verdict.not_reproduced]
    assert wrong == [("mrpc", "train")] and found[wrong[0]].misprint == "3.67"
    unknown = {task for (task, _), one in found.items() if one.verdict is Verdict.not_run}
    assert unknown == {"qqp", "mnli", "qnli"}
    page = text.markdown(registry.build("table7", RunIndex(tmp_path)))
    assert "**not reproduced** (misprint: 3.67k is meant)" in page and "9 without a run" in page


def test_held_out_parts_have_the_printed_sizes(tmp_path):
    facts = reference.load("table8")
    for (task, split), one in sizes("table8", RunIndex(tmp_path)).items():
        assert one.verdict is (Verdict.reproduced if split == "classes" else Verdict.not_run)
        if "held out" in one.loaded:
            assert one.loaded.endswith(f": {facts['datasets'][task][split]:,}")
    held = sizes("table8", RunIndex(tmp_path))
    assert held["dtd", "train"].loaded.endswith("held out: 4,060")
    assert held["dtd", "validation"].loaded.startswith("0.1 of 4,512")
    assert held["eurosat", "validation"].loaded == "validation of timm/eurosat-rgb"
    assert held["cifar10", "test"].loaded == "test of Multimodal-Fatima/CIFAR10_test"


def test_rows_that_runs_read(tmp_path, compose):
    config = to_plain(compose(["model=roberta_base", "task=qnli", "method=fourierft"]))
    cut = scored(tmp_path, config, 1, 0.9, changes={"task.train_rows": 100})
    assert cut.exists()
    assert sizes("table7", run_index.collect(tmp_path))["qnli", "train"].counted is None
    scored(tmp_path, config, 0, 0.9)
    index = run_index.collect(tmp_path)
    found = sizes("table7", index)
    assert [found["qnli", split].counted for split in ("train", "validation", "test")] == [
        *(104743, 5463),
        None,
    ]
    assert found["qnli", "train"].verdict is Verdict.reproduced
    assert [run.seed for run in found["qnli", "train"].runs] == [0]
    assert "run:roberta_base/qnli/fourierft/seed=0" in set(registry.build("table7", index).links)


def test_a_file_that_was_cut_is_not_the_printed_size(tmp_path, compose, monkeypatch):
    monkeypatch.setitem(records.ROWS, "cola", (8000, 1043))
    config = to_plain(compose(["model=roberta_base", "task=cola", "method=fourierft"]))
    scored(tmp_path, config, 0, 0.6)
    found = sizes("table7", run_index.collect(tmp_path))["cola", "train"]
    assert (found.counted, found.verdict) == (8000, Verdict.not_reproduced)


@pytest.mark.skipif(not DATA.is_dir(), reason="no GLUE at FOURIERFT_DATA")
def test_counts_are_those_of_the_files():
    import pyarrow.parquet

    for task, about in reference.load("table7")["datasets"].items():
        for split, rows in (about["counted"] or {}).items():
            file = DATA / task / f"{split}.parquet"
            assert pyarrow.parquet.read_metadata(file).num_rows == rows
