"""The measurement for GPUs, rehearsed on the CPU."""

import json
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import contestants, correctness, layers, models, pack, report, training
from benchmarks.gpu.sections import Plan, Section, find_failures, run_sections
from fourierft import forward_pass
from fourierft.engine.settings import GRADIENT, MEMORY


@pytest.fixture
def plan(tmp_path):
    return Plan(device="cpu", tiny=True, seconds=0.0, out=tmp_path)


def test_sections_are_written_at_once_and_stop_no_other(plan):
    stored = plan.out / "result.json"

    def fails(plan):
        yield {"first": 1}
        raise ValueError("no such kernel")

    def hangs(plan):
        yield {"second": json.loads(stored.read_text())["fails"]["rows"]}
        time.sleep(60)

    def last(plan):
        yield {"third": 3}

    sections = {"fails": Section(fails, 1), "hangs": Section(hangs, 0.02), "last": Section(last, 1)}
    began = time.monotonic()
    result = run_sections(sections, plan, {"machine": {}}, minutes=2.02)
    assert time.monotonic() - began < 20
    assert result["fails"]["rows"] == [{"first": 1}]
    assert result["fails"]["stopped"] == "ValueError: no such kernel"
    assert result["hangs"]["rows"] == [{"second": [{"first": 1}]}]
    assert "out of time" in result["hangs"]["stopped"]
    assert result["last"]["rows"] == [{"third": 3}] and "stopped" not in result["last"]
    assert json.loads(stored.read_text()) == result
    assert [line.partition(":")[0] for line in find_failures(result)] == ["fails", "hangs"]


def test_strategies_are_those_of_the_engine(monkeypatch):
    found = set(contestants.strategies().values())
    for memory in set(MEMORY) - {"auto"}:
        for gradient in set(GRADIENT) - {"auto"}:
            left_out = (memory, gradient) in contestants._LEFT_OUT
            assert ((memory, gradient, "rounded") in found) is not left_out
    monkeypatch.setattr(contestants, "MEMORY", (*MEMORY, "another"))
    assert "another dense" in contestants.strategies()


def test_checks_find_a_wrong_gradient(plan, monkeypatch):
    """The rows report and do not raise."""
    wanted = (
        "default, float32",
        "Conv1D",
        "kept weights",
        "gradient checkpointing",
        "one row",
        "4-bit weight",
    )
    every = correctness.checks()
    monkeypatch.setattr(correctness, "checks", lambda: {name: every[name] for name in wanted})
    assert all(row["passed"] for row in correctness.measure_correctness(plan))
    expected = correctness.Problem.expected

    def tripled(self, *args):
        y, dx, dc = expected(self, *args)
        return [y, dx, 3 * dc]

    monkeypatch.setattr(correctness.Problem, "expected", tripled)
    assert not any(row["passed"] for row in correctness.measure_correctness(plan))

    def missing(self, *args):
        raise RuntimeError("not on this device")

    monkeypatch.setattr(correctness.Problem, "expected", missing)
    rows = list(correctness.measure_correctness(plan))
    assert [row["failure"] for row in rows] == ["RuntimeError: not on this device"] * len(wanted)


def test_contestant_that_cannot_run_is_reported():
    def broken():
        raise RuntimeError("out of memory")

    found = contestants.measure_race({"frozen": int, "broken": broken}, 0.0)
    assert found["frozen"]["ratio"] == 1.0
    assert found["broken"] == {"error": "RuntimeError: out of memory"}


def test_layers_count_operations(plan):
    row = next(layers.measure_layers(plan))
    counts = {name: found["operations"] for name, found in row["counts"].items()}
    assert counts["frozen"] < counts["lora"] and counts["frozen"] < counts["recompute dense"]
    assert set(row["eager"]) == set(counts)


def test_copies_share_the_frozen_weights(plan):
    net = models.build_model(models.SHAPES["RoBERTa-base"], "fp32", plan)
    copy = models.share_weights(net)
    pairs = list(zip(net.parameters(), copy.parameters(), strict=True))
    assert copy is not net and all(a is b for a, b in pairs)


def test_report_marks_a_dry_run_and_gives_spreads():
    found = {"ms": 2.0, "ratio": 1.5, "spread": [1.4, 1.6]}
    row = {"d": 8, "eager": {"frozen": found, "lora": found, "ours": {"error": "A: b"}}}
    result = {
        "machine": {"gpu": "Some GPU", "dry": True},
        "layers": {"seconds": 3, "rows": [row], "stopped": "out of time after 3 s"},
    }
    text = report.render(result)
    assert "Some GPU" in text and "mean nothing" in text and "out of time" in text
    assert "| 8 | 2.000 ms | 1.50 (1.40-1.60) | A |" in text


def test_seeds_are_outermost(plan):
    seeds = [seed for seed, _, _ in training.runs(plan)]
    assert seeds[0] == 0 and len(seeds) == 1
    full = Plan(device="cuda", tiny=False, seconds=1.0, out=plan.out)
    seeds = [seed for seed, _, _ in training.runs(full)]
    assert seeds == sorted(seeds) and len(seeds) == 5 * 4 * 2


@pytest.mark.slow  # the first configuration that a process composes
def test_training_commands_compose(plan, compose):
    full = Plan(device="cpu", tiny=False, seconds=1.0, out=plan.out)
    for seed, task, method in training.runs(full)[:8]:
        asked = compose(training.command(full, task, method, seed)[2:])
        assert asked.train.epochs == 20 and asked.task.name == task and asked.method.name == method


def test_records_are_kept_without_adapters(tmp_path):
    for name in ("metrics.json", "adapter/weights", "checkpoints/step"):
        path = tmp_path / "runs" / "seed=0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    training.keep_records(tmp_path)
    with tarfile.open(tmp_path / "runs.tgz") as archive:
        files = [member.name for member in archive if member.isfile()]
    assert files == ["runs/seed=0/metrics.json"]


def test_wheel_keeps_one_cuda_library(tmp_path):
    wheel = tmp_path / "bitsandbytes-1-py3-none-any.whl"
    libraries = [f"bitsandbytes/libbitsandbytes_{x}.so" for x in ("cpu", "cuda128", "cuda130")]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*libraries, "bitsandbytes/nn.py"]:
            archive.writestr(name, "x")
        record = "".join(f"{name},sha256=0,1\n" for name in [*libraries, "bitsandbytes/nn.py"])
        archive.writestr("bitsandbytes-1.dist-info/RECORD", record)
    pack.strip_wheel(wheel, "130")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = archive.read("bitsandbytes-1.dist-info/RECORD").decode()
    assert libraries[1] not in names and libraries[1] not in record
    assert all(name in names and name in record for name in (libraries[0], libraries[2]))


def test_bundle_over_the_limit_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "LIMIT", 1000)
    content = tmp_path / "content"
    content.write_bytes(torch.randint(256, (2500,), dtype=torch.uint8).numpy().tobytes())
    out = tmp_path / "out"
    out.mkdir()
    written = pack.write_bundles({"part": [(content, "inside")]}, out)
    assert len(written) == 3 and all(path.stat().st_size <= 1000 for path in written)
    (tmp_path / "whole.tgz").write_bytes(b"".join(path.read_bytes() for path in written))
    with tarfile.open(tmp_path / "whole.tgz") as archive:
        assert archive.extractfile("inside").read() == content.read_bytes()


def test_packed_packages_have_a_tested_version():
    assert set(pack.PACKAGES) <= set(pack.versions())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--dry"], "nothing: allowed correctness"),
        ([], "no CUDA device"),
        (["--dry", "--jobs=0"], "--jobs"),
        (["--dry", "--data=missing", "--weights=gone"], "--data=missing.*--weights=gone"),
        (["report", "missing"], "missing: not a file"),
        (["pack", "."], "not empty"),
    ],
)
def test_mistakes(words, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    with pytest.raises(SystemExit, match=message):
        gpu.main()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_section_runs_dry(tmp_path, monkeypatch, capsys):
    kept = {name: models.SHAPES[name] for name in ("RoBERTa-base", "LLaMA-2-7B, 8 of 32 blocks")}
    monkeypatch.setattr(models, "SHAPES", kept)
    monkeypatch.setattr(sys, "argv", ["gpu", "--dry", "--out", str(tmp_path)])
    gpu.main()
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result) == ["machine", *gpu_sections()]
    assert all(result[name]["rows"] for name in gpu_sections())
    assert "skipped" in result["training"]["rows"][0]  # no data were given
    monkeypatch.setattr(sys, "argv", ["gpu", "report", str(Path(tmp_path) / "result.json")])
    capsys.readouterr()
    gpu.main()
    assert capsys.readouterr().out.count("### ") == len(gpu_sections())


def gpu_sections():
    from benchmarks.gpu.order import SECTIONS

    return list(SECTIONS)


def test_checks_build_layers_together(plan, monkeypatch):
    built = []
    original = forward_pass.build_weights
    monkeypatch.setattr(
        forward_pass, "build_weights", lambda *a: built.append(len(a[0])) or original(*a)
    )
    checks = correctness.checks()
    for name in ("batched dense, float32", "batched dense, bfloat16"):
        check, limit = checks[name]
        assert check(plan) <= limit
    assert built == [2, 2]
    assert all("batched" not in name for name in next(layers.measure_layers(plan))["counts"])
