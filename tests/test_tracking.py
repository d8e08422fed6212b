"""Where numbers go while a run goes on: the history, wandb, tensorboard."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.errors import UserError
from experiments.results.history import History, read_history
from experiments.training import tracking
from experiments.training.tracking import Tensorboard, Tracking, Wandb

ROOT = Path(__file__).resolve().parent.parent
RUN = {
    "model": "roberta_base",
    "task": "cola",
    "method": "fourierft",
    "variant": "n=200,learning_rate=0.1",
    "seed": 3,
    "experiment": None,
}
CONFIG = {"method": {"n": 1000, "alpha": 150.0}, "train": {"learning_rate": 0.05}}
COUNTS = {"adapter": 24000, "head": 592130}


class Spy(Tracking):
    """Remembers what was passed on."""

    def __init__(self):
        self.name, self.logged = "spy", []

    def log(self, step, values):
        self.logged.append((step, values))


@pytest.fixture
def spy():
    return Spy()


@pytest.fixture
def history(spy, tmp_path):
    found = History(tmp_path, spy.log)
    for step in (10, 20, 30):
        found.log(step, step / 10, step / 2, {"train/loss": 1 / step})
        found.log(step, step / 10, step / 2 + 1, {"validation/accuracy": step / 100})
    return found


def test_every_line_is_kept_and_passed_on(history, spy, tmp_path):
    lines = read_history(tmp_path)
    assert len(lines) == 6
    assert lines[1] == {"step": 10, "epoch": 1.0, "elapsed_s": 6.0, "validation/accuracy": 0.1}
    assert spy.logged[1] == (10, {"epoch": 1.0, "validation/accuracy": 0.1})
    assert lines == history.lines()


def test_new_lines_go_behind_the_old(history, tmp_path):
    before = history.path.read_bytes()
    History(tmp_path, Spy().log).log(40, 4.0, 20.0, {"train/loss": 0.0})
    assert history.path.read_bytes().startswith(before)
    assert len(read_history(tmp_path)) == 7


def test_cut_drops_what_lies_behind_and_says_the_time(history, tmp_path):
    history.cut(20)
    assert history.elapsed() == 11.0
    assert [line["step"] for line in read_history(tmp_path)] == [10, 10, 20, 20]
    assert os.listdir(tmp_path) == ["history.jsonl"]
    history.cut(0)
    assert history.elapsed() == 0.0
    assert history.path.read_text() == ""


def test_cut_before_anything_was_logged(tmp_path):
    empty = History(tmp_path, Spy().log)
    empty.cut(5)
    assert empty.elapsed() == 0.0
    assert read_history(tmp_path) == []


@pytest.mark.parametrize(
    "torn", ['{"step": 40, "epo', '{"step": 40}x', '{"step": 40, "epoch": 4.0']
)
def test_torn_last_line_is_left_out_and_cut_away(history, tmp_path, torn):
    with history.path.open("a") as file:
        file.write(torn)
    assert len(read_history(tmp_path)) == 6
    history.cut(30)
    history.log(40, 4.0, 20.0, {"train/loss": 0.5})
    assert [line["step"] for line in read_history(tmp_path)] == [10, 10, 20, 20, 30, 30, 40]


def test_diverged_loss_is_kept(tmp_path):
    History(tmp_path, Spy().log).log(1, 1.0, 1.0, {"train/loss": math.nan})
    assert math.isnan(read_history(tmp_path)[0]["train/loss"])


def offline(folder, **changes):
    service = Wandb(name="wandb", project="test", **{"mode": "offline", **changes})
    service.start(folder, RUN, CONFIG, COUNTS)
    return service


def records(folder):
    """Records of an offline run's file: 7 bytes of header, then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content, position, parts, found = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = (
            int.from_bytes(content[position + 4 : position + 6], "little"),
            content[position + 6],
        )
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


@pytest.mark.slow
def test_wandb_offline_writes_config_history_and_summary(tmp_path, monkeypatch):
    """Without key and network: the folder that `wandb sync` takes later."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DIR", raising=False)
    service = offline(tmp_path, group="table2", tags=["t"])
    History(tmp_path, service.log).log(10, 1.0, 2.0, {"validation/accuracy": 0.75})
    service.finish({"primary": {"value": 0.75}})
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert f"`wandb sync {folder}`" in service.describe_rest(tmp_path)
    wandb.teardown()  # its service may write the file after `finish`; the end of Python waits too

    found = records(tmp_path)
    config = {
        item.key: json.loads(item.value_json)
        for record in found
        if record.WhichOneof("record_type") == "run"
        for item in record.run.config.update
    }
    assert config["method"] == CONFIG["method"] and config["parameters"] == COUNTS
    runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert runs[0].run_group == "table2" and runs[0].job_type == "fourierft"
    assert runs[0].display_name == "roberta_base cola fourierft n=200,learning_rate=0.1 seed=3"
    assert set(runs[0].tags) == {"roberta_base", "cola", "fourierft", "t"}
    logged = [
        {
            ".".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in r.history.item
        }
        for r in found
        if r.WhichOneof("record_type") == "history"
    ]
    assert any(line.get("validation/accuracy") == 0.75 and line["epoch"] == 1.0 for line in logged)
    assert any(
        "primary" in str(r.summary) for r in found if r.WhichOneof("record_type") == "summary"
    )


def test_wandb_disabled_writes_nothing(tmp_path):
    pytest.importorskip("wandb")
    service = offline(tmp_path, mode="disabled")
    service.log(1, {"x": 1.0})
    service.finish({"primary": {"value": 1.0}})
    assert os.listdir(tmp_path) == []
    assert service.describe_rest(tmp_path) is None


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_run_kept_offline_names_its_folder_and_the_command(tmp_path, mode):
    """The folder of the run, also where a repetition was made beside it and moved there."""
    service = Wandb(name="wandb", project="test", mode=mode)
    assert service.describe_rest(tmp_path) is None, "never started"
    made = tmp_path / "beside/wandb/offline-run-7"
    service._run = SimpleNamespace(settings=SimpleNamespace(sync_dir=str(made)))
    told = f"wandb: kept offline; `wandb sync {tmp_path}/wandb/offline-run-7` sends it"
    assert service.describe_rest(tmp_path) == (told if mode == "offline" else None)


@pytest.mark.parametrize(("summary", "code"), [(None, 1), ({"primary": {"value": 1.0}}, 0)])
def test_wandb_is_told_whether_the_run_failed(tmp_path, monkeypatch, summary, code):
    pytest.importorskip("wandb")
    service = offline(tmp_path, mode="disabled")
    codes, finish = [], service._run.finish

    def finishing(exit_code):
        codes.append(exit_code)
        finish(exit_code=exit_code)

    monkeypatch.setattr(service._run, "finish", finishing)
    service.finish(summary)
    assert codes == [code]


ONLINE = """
import sys
from pathlib import Path
from experiments.errors import UserError
from experiments.training.tracking import Wandb
run = {"model": "m", "task": "t", "method": "f", "seed": 0, "experiment": None}
try:
    Wandb(name="wandb", project="p").start(Path(sys.argv[1]), run, {}, {})
except UserError as error:
    print(error)
"""


def without_login(tmp_path, **options):
    environment = {name: text for name, text in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "TERM": "xterm"}
    return subprocess.Popen(
        [sys.executable, "-c", ONLINE, tmp_path], cwd=ROOT, env=environment, text=True, **options
    )


@pytest.mark.parametrize("terminal", [False, True], ids=["batch", "terminal"])
def test_wandb_without_login_says_what_to_do(tmp_path, terminal):
    """Also where there is a terminal to ask at: a run does not wait for an answer."""
    pytest.importorskip("wandb")
    if terminal:
        pty = pytest.importorskip("pty")
        main, side = pty.openpty()
        process = without_login(tmp_path, stdin=side, stderr=side, stdout=subprocess.PIPE)
    else:
        process = without_login(
            tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
    try:
        said, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    for word in ("tracking.mode=online", "wandb login", "tracking.mode=offline", "tracking=local"):
        assert word in said
    assert "Traceback" not in said


def test_wandb_is_asked_for_but_absent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is not installed"):
        offline(tmp_path)


def test_wandb_mode_is_checked():
    assert not list(Wandb(name="wandb", project="p").problems())
    (problem,) = Wandb(name="wandb", project="p", mode="onlin").problems()
    assert "tracking.mode=onlin" in problem and "offline" in problem


def test_tensorboard_holds_the_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    service = Tensorboard(name="tensorboard")
    service.start(tmp_path, RUN, CONFIG, COUNTS)
    history = History(tmp_path, service.log)
    for step in (10, 20):
        history.log(step, step / 10, 1.0, {"validation/accuracy": step / 40})
    service.finish({"primary": {"value": 0.5}})
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = [(event.step, event.value) for event in found.Scalars("validation/accuracy")]
    assert points == [(10, 0.25), (20, 0.5)]
    assert found.Scalars("parameters/adapter")[0].value == COUNTS["adapter"]
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"n": 1000' in text


def test_tensorboard_is_asked_for_but_absent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="tensorboard is not installed"):
        Tensorboard(name="tensorboard").start(tmp_path, RUN, CONFIG, COUNTS)


def test_local_tracking_writes_nothing(tmp_path):
    service = Tracking(name="local")
    service.start(tmp_path, RUN, CONFIG, COUNTS)
    service.log(1, {"x": 1.0})
    service.finish(None)
    assert os.listdir(tmp_path) == [] and tracking.TRACKINGS[0] is Tracking


def test_a_run_that_was_never_tracked_is_finished():
    """It failed before, or was only counted."""
    Wandb(name="wandb", project="p").finish(None)
    Tensorboard(name="tensorboard").finish({"primary": None})
