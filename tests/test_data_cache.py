"""What a cell of a sweep takes over from the one before, and that nothing leaks with it."""

import json
import os

import pytest
from processes import train
from records import contents

from experiments.run import data_cache


@pytest.fixture
def cell(compose, data_folder):
    def make(*changes):
        given = ["model=minilm", "task=rte", "method=lora", "source=ours", *changes]
        return compose([*given, f"task.path={data_folder / 'glue/rte'}", "task.train_rows=8"])

    return make


def prepare(cell):
    return data_cache.load(cell.model, cell.task, cell.model.locate(), cell.task.locate())


def test_equal_cells_share_data_and_others_do_not(cell):
    first = prepare(cell("seed=0"))
    other = prepare(cell("seed=1", "method=fourierft"))
    assert other[0] is first[0] and other[1] is first[1]
    assert prepare(cell("task.eval_rows=8"))[1] is not first[1]
    assert prepare(cell())[1] is not first[1], "more than the last is kept"


def test_a_file_that_changed_is_read_again(cell, data_folder, tmp_path):
    for name in ("train", "validation"):
        source = data_folder / f"glue/rte/{name}.parquet"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    there = cell()
    there.task.path = str(tmp_path)
    first = prepare(there)
    assert prepare(there)[1] is first[1]
    os.utime(tmp_path / "train.parquet", ns=(1, 1))
    assert prepare(there)[1] is not first[1]


@pytest.mark.slow
def test_every_cell_of_a_sweep_equals_the_cell_run_alone(data_folder, tmp_path):
    """Bit for bit: curve, predictions, adapter and record."""
    plain = [
        *("model=minilm", "task=rte", f"task.path={data_folder / 'glue/rte'}"),
        *("task.train_rows=16", "task.eval_rows=16", "task.max_length=24", "train.device=cpu"),
        *("train.epochs=2", "train.batch_size=8", "train.learning_rate=1e-2", "source=ours"),
    ]

    def trained(output, *words):
        process = train(*words, *plain, f"output={tmp_path / output}")
        printed, _ = process.communicate(timeout=500)
        assert process.returncode == 0, printed

    trained("sweep", "-m", "method=fourierft,lora,bitfit", "seed=0,1")
    cells = [("lora", 1), ("fourierft", 1), ("bitfit", 0)]
    for method, seed in cells:
        trained("alone", f"method={method}", f"seed={seed}")
    swept, alone = contents(tmp_path / "sweep"), contents(tmp_path / "alone")
    assert len(swept) == 6 and len(alone) == 3
    assert alone == {name: swept[name] for name in alone}
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("metrics.json")]
    assert len({one["environment"]["data"] for one in records}) == 1


def test_links_that_lead_nowhere_and_files_that_vanish_do_not_count(tmp_path):
    (tmp_path / "rows.parquet").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    link, rows = data_cache._list_stamps(str(tmp_path))
    assert link == (str(tmp_path / "link"), -1) and rows[3] == 0
