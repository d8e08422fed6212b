"""The benchmark of mixed batches: it rehearses in seconds, and its goals are computed from rows."""

import argparse
import json
import threading
import time

import psutil
import pytest
import torch

from benchmarks.serving import __main__ as serving
from benchmarks.serving import contestants, load, picture, sections


def test_rehearsal(tmp_path, capsys):
    out, drawn = tmp_path / "serving.json", tmp_path / "serving.png"
    serving.main(["--dry", "--out", str(out), "--picture", str(drawn)])
    result = json.loads(out.read_text())
    assert result.keys() == {"machine", *sections.SECTIONS, "goals"}
    assert [row["adapters"] for row in result["decode"]] == sections.DRY.adapters
    assert {goal["goal"] for goal in result["goals"]} == serving.GOALS.keys()
    for row in result["decode"]:
        assert {"base", "bank", "LoRA, adapter_names", "LoRA, gathered", "merged"} <= row.keys()
    last = result["resident"][-1]
    assert last["adapters"] == 130 and last["bank MB"] < 1.5 * last["coefficients MB"]
    assert drawn.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(f"## {name}" in printed for name in sections.SECTIONS)


def test_goals_are_of_the_worst_case():
    decode = [
        {"d": d, "adapters": count, "bank / LoRA": ratio, "bank, once": once}
        for d, count, ratio, once in (
            (3, 1, 1.2, 10),
            (3, 128, 0.1, 11),
            (4, 1, 1.0, 9),
            (4, 128, 0.4, 9),
        )
    ]
    found = {goal["goal"]: goal for goal in serving.check_goals({"decode": decode})}
    assert found["bank / LoRA at the most adapters"]["found"] == 0.4
    assert not found["bank / LoRA at the most adapters"]["reached"]
    assert found["bank / LoRA at any number"]["found"] == 1.2
    assert found["bank, once: at the most adapters / at one"]["found"] == 1.1


@torch.no_grad()
def test_forms_of_lora_agree():
    layer = contestants.TimedLayer(32, rows=6, tokens=2, most=3, n=20)
    one_by_one = layer.by_names(layer.lora, 3)()
    assert (layer.gathered(3)() - one_by_one).abs().max() < 1e-4
    assert (one_by_one - layer.ready()).abs().max() > 1e-2


@torch.no_grad()
def test_wrong_updates_are_not_timed(monkeypatch):
    monkeypatch.setattr("fourierft.bank.rows.banked_update", lambda x, *args: x.clone())
    with pytest.raises(ArithmeticError, match="not those of adapter_names"):
        contestants.TimedLayer(32, rows=6, tokens=1, most=3, n=20)


def test_picture_has_a_panel_per_side():
    rows = [
        {"d": d, "of": "x", "rows": 8, "adapters": count, "base": 1.0, "bank": 0.5, "merged": -2.0}
        for d in (32, 64)
        for count in (1, 8)
    ]
    figure = picture.draw(rows)
    assert len(figure.axes) == 2
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.5, 0.5]
    assert list(figure.axes[0].lines[-2].get_ydata()) == [picture.LOWEST] * 2


def test_unknown_sections():
    with pytest.raises(SystemExit, match="nothing: allowed resident, latency"):
        serving.main(["nothing"])


class Server:
    """In place of `ServerProcess`: answers with the name of the adapter."""

    def __init__(self, *_):
        self.process, self.running = psutil.Process(), True

    def start(self):
        time.sleep(0.2)
        self.running = True

    def kill(self):
        self.running = False

    def write(self, name, _):
        return 200, {"choices": [{"text": name}]}

    def ask(self, *_):
        return 200, {}

    def leave(self, _):
        pass

    def cpu_seconds(self):
        return 0.0


@pytest.mark.parametrize("kill_after", [0.0, 2.0])
def test_no_server_outlives_a_load(monkeypatch, kill_after):
    """Neither one whose restart has begun nor one that was to be killed later."""
    made = []
    monkeypatch.setattr(load, "ServerProcess", lambda *_: made.append(Server()) or made[0])
    monkeypatch.setattr(
        load,
        "make_adapters",
        lambda _, folder, names, *__: [(folder / f"{n}.safetensors").touch() for n in names],
    )
    sizes = dict(count=2, clients=1, requests=2, tokens=1, batch=1, compared=2, n=1, scale=1.0)
    load.measure(argparse.Namespace(base="", kill_after=kill_after, **sizes))
    assert not made[0].running
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
