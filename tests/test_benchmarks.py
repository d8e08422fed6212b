"""The benchmark measures what it says, in turns."""

import argparse
import functools
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cases, engine, operations, timing
from fourierft import Engine, FourierFTLayer

OPTIONS = argparse.Namespace(device="cpu", seconds=0.0)


def test_contestants_run_in_turns(monkeypatch):
    order, clock = [], iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    found = timing.race(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        seconds=0,
        after={"b": lambda: order.append("undo b")},
    )
    turn = ["a", "b", "undo b"]
    assert order == turn * (len(order) // 3) and found["a"]["rounds"] == timing.FEWEST
    assert found["a"]["ratio"] == 1.0 and found["b"]["ratio"] == 1.0  # each took one tick


def test_ratio_is_taken_within_a_round(monkeypatch):
    """A machine that slows down in some rounds does not show."""
    times = {"a": [], "b": []}
    now = [0.0]

    def spend(name, seconds):
        def run():
            times[name].append(1)
            slow = 10 if len(times[name]) % 2 else 1
            now[0] += slow * seconds

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    found = timing.race({"a": spend("a", 1.0), "b": spend("b", 3.0)}, seconds=0)
    assert found["b"]["ratio"] == pytest.approx(3.0)
    assert found["b"]["spread"] == pytest.approx([3.0, 3.0])


def test_saved_bytes_are_those_of_autograd():
    weight, x = torch.randn(8, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    kept = {weight.untyped_storage().data_ptr()}
    assert timing.saved_bytes(lambda: (x @ weight).sum(), kept) == x.nbytes
    assert timing.saved_bytes(lambda: (x @ weight).sum(), set()) == x.nbytes + weight.nbytes


def test_peak_is_the_most_at_once():
    def run():
        first = torch.empty(1000, 1000)
        del first
        return torch.empty(500, 1000), torch.empty(250, 1000)

    assert timing.peak_bytes(run, "cpu") == pytest.approx(4_000_000, rel=0.01)


@pytest.mark.parametrize("method", ["frozen", "cache", "recompute", "sampled", "lora", "stock"])
def test_contestants_are_what_they_are_called(method):
    step, layer = cases.layer_step(method, (32, 24), 5, 20, torch.float32, "cpu")
    step()
    if isinstance(layer, FourierFTLayer):
        memory = "recompute" if method == "recompute" else "cache"
        gradient = "sampled" if method == "sampled" else "auto"
        assert layer.engine == Engine(memory, gradient)
    assert isinstance(layer, FourierFTLayer) is (method not in ("frozen", "lora", "stock"))
    trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    assert trained == {"frozen": 0, "lora": 8 * (32 + 24)}.get(method, 20)
    before = [p.detach().clone() for p in layer.parameters() if p.requires_grad]
    cases.changing(step, layer)()
    after = [p for p in layer.parameters() if p.requires_grad]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True) if b.any())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_section_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine, "LAYERS", [(32, 4, 1000), (32, 4, 30)])
    monkeypatch.setattr(engine, "PLANES", [40])
    monkeypatch.setattr(engine, "QUANTISED", [(64, 4)])
    monkeypatch.setattr(engine, "GENERATED", [1])
    tiny = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    tiny |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    monkeypatch.setattr(cases, "WRITER", cases.WRITER | tiny)
    small = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 1000}
    monkeypatch.setattr(cases, "RobertaConfig", functools.partial(cases.RobertaConfig, **small))
    monkeypatch.setattr(engine, "TimedModel", lambda *a: cases.TimedModel(*a, layers=1))
    monkeypatch.setattr(engine, "BATCHES", {"large": (2, 8), "small": (1, 4)})
    out = tmp_path / "engine.json"
    monkeypatch.setattr(sys, "argv", ["engine", "--seconds", "0", "--out", str(out)])
    engine.main()
    result = json.loads(out.read_text())
    assert result.keys() == {"machine", *engine.SECTIONS}
    assert all(result[name] for name in engine.SECTIONS)
    printed = capsys.readouterr().out
    assert all(f"## {name}" in printed for name in engine.SECTIONS) and "| stock |" in printed


@pytest.mark.parametrize("name", operations.CONTESTANTS)
def test_operations_are_those_of_the_docs(name):
    page = Path(__file__).parent.parent / "docs" / "performance.md"
    (row,) = [line for line in page.read_text().splitlines() if line.startswith(f"| {name} | ")]
    cells = [float(cell.strip(" |*")) for cell in row.split("|")[2:4]]
    method = operations.CONTESTANTS[name]
    found = [operations.count_per_layer(method, dtype) for dtype in operations.DTYPES.values()]
    assert cells == [round(count, 1) for count in found]


def test_slow_rows_say_why_they_are_missing(monkeypatch):
    monkeypatch.setattr(engine, "LAYERS", [(16, 4, 1000)])
    monkeypatch.setattr(engine, "TOO_SLOW", 0.0)
    assert all("the frozen layer alone" in row["skipped"] for row in engine.layers(OPTIONS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: allowed operations, transforms, layers"),
        (["--device=cuda"], "no CUDA device"),
        (["--threads=0"], "--threads"),
    ],
)
def test_mistakes(arguments, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["engine", *arguments])
    with pytest.raises(SystemExit, match=message):
        engine.main()
