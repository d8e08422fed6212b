"""The examples of CONTRIBUTING.md, followed in a copy of the project; wrong guesses."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config.compose import compose_config, register
from experiments.config.load import load_config
from experiments.errors import ConfigError, UserError
from experiments.methods import METHODS, Method
from experiments.models import MODELS, Model
from experiments.run.build import build_network
from experiments.smoke import synthetic_data
from experiments.tasks import TASKS, Task

ROOT = Path(__file__).resolve().parent.parent
RULES, _, GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("# Add somet")
SECTIONS = re.findall(r"^## (.*)\n", GUIDE, re.M)
SETTINGS = ("train.epochs=1", "train.batch_size=8", "train.learning_rate=1e-3")


def blocks(section):
    """Language and text of every block of a section."""
    text = GUIDE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.S)


def get_path(text):
    """The file that a block is, as a comment at its beginning says."""
    return re.search(r"^# (\S+/\S+)$", text, re.M)[1]


def hunks(change):
    """Texts of a diff, as they are before and after; `@@` stands between two."""
    for part in change.split("@@\n"):
        lines = part.splitlines(keepends=True)
        yield tuple("".join(line[1:] for line in lines if line[0] in mark) for mark in (" -", " +"))


def write_files(section, root):
    """Writes the files of a section, and changes those that are there."""
    for language, text in blocks(section):
        if language in ("python", "yaml"):
            name = get_path(text)
            assert not (ROOT / name).exists(), name
            (root / name).write_text(text)
        if language == "diff":
            name, _, change = text.removeprefix("--- ").partition("\n")
            content = (root / name).read_text()
            for before, after in hunks(change):
                assert content.count(before) == 1, f"{name} has not once:\n{before}"
                content = content.replace(before, after)
            (root / name).write_text(content)


@pytest.fixture(scope="module", autouse=True)
def schemas():
    register()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which all examples were followed, with made-up rows of rte."""
    root = tmp_path_factory.mktemp("project")
    for name in ("conf", "experiments", "fourierft"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", root)
    for section in SECTIONS:
        write_files(section, root)
    rte = ["model=roberta_base", "task=rte", "profile=smoke"]
    synthetic_data.make_data(load_config(compose_config(rte)).task, root / "DATA", None)
    return root


def execute(command, root):
    words = shlex.split(command.removeprefix(".venv/bin/python "))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_an_example_of_each():
    assert SECTIONS == ["A method", "A task", "A base model", "A table"]


def test_rules_are_short():
    assert len(RULES.splitlines()) <= 45


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_examples_work(section, project):
    commands = [
        line
        for language, text in blocks(section)
        if language == "bash"
        for line in text.splitlines()
    ]
    assert commands
    for command in commands:
        before = {*project.glob("outputs/**/metrics.json")}
        shown = execute(command, project)
        if "train.py" in command:
            made = {*project.glob("outputs/**/metrics.json")} - before
            assert len(made) == (4 if "experiment=" in command else 1)
            for path in made:
                record = json.loads(path.read_text())
                assert sum(record["parameters"].values()) > 0
                assert "mode=count" in command or record["metrics"]["primary"]
        else:
            assert "Table 14: The toy" in shown
            assert "2 cells: 2 not comparable" in shown and "random weights" in shown


@pytest.mark.slow
def test_examples_keep_the_rules_of_the_code(project):
    names = [
        str(project / get_path(text))
        for section in SECTIONS
        for language, text in blocks(section)
        if language == "python"
    ]
    ruff = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*ruff, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("group", "classes"), [("method", METHODS), ("task", TASKS), ("model", MODELS)]
)
def test_a_class_that_is_not_listed(group, classes, tmp_path):
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(
        f"defaults: [/schema/{group}/mine@_here_]\nname: mine\n"
    )
    with pytest.raises(ConfigError) as caught:
        compose_config([f'hydra.searchpath=["file://{tmp_path}"]', f"{group}=mine"])
    (line,) = caught.value.problems
    assert line.startswith(f"conf/{group}/mine.yaml: /schema/{group}/mine: unknown class (allowed:")
    assert f"experiments/{group}s/__init__.py" in line
    assert all(kind.__name__.lower() in line for kind in classes)


@pytest.mark.parametrize(
    ("group", "part"),
    [
        ("method", Method(name="mine")),
        ("task", Task(name="mine", metrics=[])),
        ("model", Model(name="mine", heads=["points"], attention=["hidden"])),
    ],
)
def test_a_file_that_names_no_class(group, part, compose):
    config = compose([])
    assert not [line for line in config.problems() if "names no class" in line]
    setattr(config, group, part)
    (line,) = [line for line in config.problems() if "names no class" in line]
    assert line.startswith(f"{group}=mine: ") and f"/schema/{group}/CLASS@_here_" in line


def test_a_method_that_selects_nothing(compose, monkeypatch):
    config = compose(["method=bitfit", "source=none", *SETTINGS])
    monkeypatch.setattr(type(config.method), "selects", lambda self, name: False)
    with pytest.raises(UserError, match="method=bitfit: selects no parameter of model=mlp"):
        build_network(config, None)
