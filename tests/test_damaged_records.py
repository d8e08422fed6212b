"""Records with whatever may have gone wrong in them, through every command that reads records.

Mutations are drawn with a seed from real records. None may end a command in a traceback, hang it,
or be passed over in silence.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import random
import shutil

import pytest
from limits import limit
from records import scored

from experiments.commands import export
from experiments.commands.results import main as command
from experiments.errors import UserError
from experiments.report import __main__ as report
from experiments.report.comparison import run_index
from experiments.results.identity import get_run_dir, to_plain
from experiments.results.record import read_record
from experiments.results.run_folder import find_record
from experiments.run.main import run

CASES, SEED = 300, 14
"""Of each kind of record."""
SECRET = "never-to-be-printed"
VALUES = [
    *(None, True, False, 0, -1, 3, -7.5, 1e-320, 1e99, 1e308, float("inf"), float("nan")),
    *(2**63, 10**30, -(10**400), "", " ", "0", "null", "???", "x" * 5000, "\ud800", "\x1b[2J"),
    *(
        "<script>alert(1)</script>",
        "![x](javascript:x)",
        "=1+1",
        "@SUM(A1)",
        "$x$ \\frac{",
        "|a\n|b",
    ),
    *("${oc.env:SECRET}", "${model}", "\\${x}", "../../tmp/x", "/", "evil.part", "ÿ漢\u202e"),
    *([], {}, [[]], [{}], {"": 1}, {"a.b": {"c": None}}, ["a", 1, None], [0.1, "x"], [None] * 2),
]


DEEP = "deep"
DEEP_TEXT = '{"a": [' * 3000 + "]}" * 3000
"""Deeper than json can write it."""


def places(node, path=()):
    """Every path into a JSON value."""
    for key, item in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, key))


def mutated(draw, record):
    """The bytes of a record with one to three things wrong."""
    record = copy.deepcopy(record)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        *path, key = draw.choice(list(places(record)))
        node = record
        for step in path:
            node = node[step]
        kind = draw.randrange(10)
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[key] = [node[key]]
        elif kind == 2:
            node[key] = {"value": node[key]}
        elif kind == 3:
            levels = draw.choice((0, 10, 20, 75))
            node[key] = json.loads('{"a": [' * levels + "1" + "]}" * levels) if levels else DEEP
        elif kind == 4 and isinstance(node, dict):
            node[draw.choice(("", "a.b", "<b>", "\ud800", "name", "value"))] = node.pop(key)
        elif kind == 5 and isinstance(node[key], (int, float)):
            node[key] = node[key] * draw.choice((-1, 0, 1e3, 1e12, 1e40))
        else:
            node[key] = draw.choice(VALUES)
    content = json.dumps(record).replace(f'"{DEEP}"', DEEP_TEXT).encode()
    kind, place = draw.randrange(20), draw.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    if kind == 2:
        return content[:place] + draw.randbytes(3) + content[place:]
    return content


@pytest.fixture(scope="module")
def toy(tmp_path_factory, compose):
    """A real run of the toy, and its configuration."""
    config = compose(["model=mlp", "task=toy", "method=fourierft", "train.epochs=20"])
    config.output = str(tmp_path_factory.mktemp("toy"))
    run(config)
    return get_run_dir(config), config


@pytest.fixture(scope="module", params=["toy", "roberta_base sst2 fourierft", "vit_base dtd lora"])
def damaged(request, tmp_path_factory, compose, toy):
    """An output folder of mutated copies of a record, each of a seed of its own."""
    root = tmp_path_factory.mktemp("outputs")
    if request.param == "toy":
        source = toy[0]
    else:
        model, task, method = request.param.split()
        config = compose([f"model={model}", f"task={task}", f"method={method}"])
        source = scored(tmp_path_factory.mktemp("made"), to_plain(config), 0, 0.7)
    record = json.loads((source / "metrics.json").read_text())
    draw = random.Random(f"{SEED} {request.param}")
    for number in range(CASES):
        record["run"]["seed"] = record["config"]["seed"] = number
        said = record["run"]
        place = root / said["model"] / said["task"] / said["method"] / f"seed={number}"
        shutil.copytree(source, place)
        (place / "metrics.json").write_bytes(mutated(draw, record))
        if number % 10 == 0:
            victim = draw.choice([path for path in place.rglob("*") if path.is_file()])
            content = victim.read_bytes()
            cut = draw.randrange(len(content) + 1)
            victim.write_bytes(content[:cut] + draw.randbytes(draw.randrange(4)))
    return root


@pytest.mark.slow
def test_report(damaged, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SECRET", SECRET)
    with limit(240):
        assert report.main(["--outputs", str(damaged), "--to", str(tmp_path)]) == 0
    found = run_index.collect(damaged)
    left_out = {record.path.parent for record in found.excluded}
    assert len(found.runs) > CASES // 20 and len(left_out) > CASES // 4
    counted = {one.run_dir for one in found.runs}
    assert counted | left_out >= {path.parent for path in damaged.rglob("metrics.json")}
    page = (tmp_path / "troubles.md").read_text()
    for record in found.excluded:
        assert page.count(f"`{record.path}`") == 1
    for path in tmp_path.rglob("*"):
        if path.suffix in (".md", ".csv", ".html", ".tex", ".svg"):
            text = path.read_text()
            assert SECRET not in text, path
            assert path.suffix != ".md" or "<script" not in text, path
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            for cell in (cell for line in csv.reader(file) for cell in line):
                assert not cell.startswith(("=", "@")), (path, cell)


@pytest.mark.slow
def test_verify_and_comparison(damaged, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SECRET", SECRET)
    with limit(240):
        command(["verify", str(damaged)])
        captured = capsys.readouterr()
        command(["export", str(damaged), "--to", str(tmp_path)])
    for path in damaged.rglob("metrics.json"):
        try:
            record = read_record(path.parent)
        except UserError:
            assert captured.err.count(f"{path.parent}: does not match\n") == 1
        else:
            expected = record.metrics is not None
            assert captured.err.count(f"{path.parent}: does not match\n") <= expected
    assert SECRET not in captured.err + captured.out + capsys.readouterr().err
    for path in tmp_path.glob("*.json"):
        assert SECRET not in path.read_text()


@pytest.mark.slow
def test_skip_check_and_status(damaged, toy, monkeypatch, capsys):
    from experiments.report.run_state import look

    _, config = toy
    for path in damaged.rglob("metrics.json"):
        with limit(20), contextlib.suppress(UserError):
            find_record(path.parent, config)
        with limit(20):
            look(path.parent, config)


@pytest.mark.slow
def test_export(damaged, tmp_path, monkeypatch, capsys):
    """One sentence each: the toy is no model of transformers."""
    monkeypatch.setenv("SECRET", SECRET)
    for number, path in enumerate(sorted(damaged.rglob("metrics.json"))):
        with limit(30):
            assert export.main([str(path.parent), str(tmp_path / str(number))]) == 1, path
        said = capsys.readouterr()
        assert said.err.startswith("experiments.export: ") and SECRET not in said.err + said.out
        assert len(said.err) < 5000
