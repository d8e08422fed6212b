"""Paths as people and our own runs name them, taken as they are typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config import paths
from experiments.config.compose import compose_config, register
from experiments.config.run_config import IDENTITY

ODD = [
    "outputs/roberta_base/cola/fourierft/n=200/seed=0/merged",
    "outputs/x/n=200,epochs=3/seed=0",
    "/a b/c",
    "/a#b",
    "/it's",
    '/say "so"',
    '/it\'s "so"',
    "/a(b)[c]{d}",
    "/a!b&c;d<e>^f`g",
    "/häuser/データ",
    "/a\\b",
    "/ends with\\",
    "/a:b@c%d+e",
    "1e3",
    "007",
    "true",
    "glob(*)",
    "choice(a)",
    "/a/$b",
    "[a]",
]


def value(argument):
    override = OverridesParser.create().parse_override(argument)
    assert not override.is_sweep_override()
    return override.value()


@pytest.mark.parametrize("path", [*ODD, "plain/folder", "/a,b", " a "])
@pytest.mark.parametrize("key", ["model.path", "output", "+task.questions"])
def test_what_is_there_is_taken_as_it_is_typed(tmp_path, monkeypatch, path, key):
    monkeypatch.chdir(tmp_path)
    full = tmp_path / path.lstrip("/") if path[0] == "/" else tmp_path / path
    full.mkdir(parents=True)
    typed = str(full) if path[0] == "/" else path
    (argument,) = paths.quote_paths([f"{key}={typed}"])
    assert str(value(argument)) == typed


@pytest.mark.parametrize("path", [path for path in ODD if "(*" not in path and "," not in path])
def test_so_is_what_is_still_to_be_made(path):
    if path.startswith(("choice", "[")):
        pytest.skip("a list or a sweep, unless such a folder is there")
    (argument,) = paths.quote_paths([f"output={path}"])
    assert str(value(argument)) == path


def test_the_home_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a=b")
    assert value(*paths.quote_paths(["task.path=~/data"])) == "/home/a=b/data"
    assert value(*paths.quote_paths(["output=~"])) == "/home/a=b"


@pytest.mark.parametrize(
    "argument",
    [
        "model.path=null",
        "model.path=",
        "task.path='/a=b'",
        'task.path="/a b"',
        "task.path=/data/${task.name}",
        "task.path=/nowhere/a,/nowhere/b",
        "task.path=choice(/a,/b)",
        "task.path=glob(*)",
        "task.path",
        "--cfg",
        "method.n=200",
        "method.n=a=b",
        "~task.path",
    ],
)
def test_what_is_left_alone(argument):
    assert paths.quote_paths([argument]) == [argument]


def test_several_paths_are_a_sweep(tmp_path):
    for name in ("n=1", "n=2"):
        (tmp_path / name).mkdir()
    (argument,) = paths.quote_paths([f"model.path={tmp_path}/n=1,{tmp_path}/n=2"])
    override = OverridesParser.create().parse_override(argument)
    assert [one.text for one in override.value().list] == [f"{tmp_path}/n=1", f"{tmp_path}/n=2"]


def test_an_interpolation_within_a_path_is_kept(tmp_path):
    register()
    given = ["model=minilm", "task=rte", "method=fourierft", "task.path=/d=1/${task.name}"]
    assert compose_config(paths.quote_paths(given)).task.path == "/d=1/rte"


def test_every_path_of_the_configuration_is_known():
    """Fields that are said to be a folder or a file, and local."""
    assert set(paths.KEYS) - {"output"} == {
        f"{section}.{name}"
        for section in ("model", "task")
        for name in ("path", "tokenizer", "class_path", "extractor", "questions")
        if name in IDENTITY[section]
    }


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ([], "outputs"),
        (["seed=1", "-m"], "outputs"),
        (["output=a", "output='/b=c'"], "/b=c"),
        (["output=a,b"], None),
        (["output=/a/${seed}"], None),
        (["output=null"], None),
    ],
)
def test_the_folder_of_all_runs(arguments, output):
    assert paths.find_output(arguments) == output
