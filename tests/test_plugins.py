"""Private modules: their classes and options without an edit of the checkout."""

import os
import sys

import pytest

from experiments.config import changes, compose, overrides, plugins
from experiments.config.load import load_config
from experiments.config.restore import restore_config
from experiments.config.run_config import IDENTITY, LATER
from experiments.errors import ConfigError
from experiments.results import inputs
from experiments.results.identity import get_run_dir, to_plain

MODULE = """
from dataclasses import dataclass, field

from experiments.methods.selective import Selective
from experiments.results.identity import LOCAL
from experiments.tasks.toy import Toy


@dataclass(kw_only=True)
class PrivateToy(Toy):
    note: str = field(default="", metadata=LOCAL)


@dataclass(kw_only=True)
class PrivateBiases(Selective):
    def selects(self, parameter):
        return parameter.endswith("bias")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A folder with private_parts.py and conf/, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(compose, "FOLDERS", [])
    monkeypatch.setattr(compose, "CLASSES", dict(compose.CLASSES))
    for name in ("PYTHONPATH", plugins.VARIABLE):
        monkeypatch.setenv(name, "")
    before = dict(IDENTITY), dict(LATER)
    (tmp_path / "private_parts.py").write_text(MODULE)
    toy = (compose.CONF / "task/toy.yaml").read_text().replace("task/toy@", "task/privatetoy@")
    for group, text in (
        ("task", toy.replace("name: toy", "name: mine")),
        ("method", "defaults: [/schema/method/privatebiases@_here_]\nname: mine\n"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    compose.register()
    yield tmp_path
    for known, kept in zip((IDENTITY, LATER), before, strict=True):
        known.clear()
        known.update(kept)
    sys.modules.pop("private_parts", None)
    changes.find_plain.cache_clear()


CHOICE = ["task=mine", "method=mine", "source=none", "train.epochs=1", "train.batch_size=9"]
CHOICE += ["train.learning_rate=0.1", "task.note=hello"]


def test_a_run_of_private_parts(module):
    words = plugins.take_plugins(["plugin=private_parts", *CHOICE])
    assert [word for word in words if not word.startswith("hydra.")] == CHOICE
    assert overrides.find_problems(words) == []
    config = load_config(compose.compose_config(words), words)
    assert type(config.task).__name__ == "PrivateToy" and config.task.note == "hello"
    assert "note" not in str(get_run_dir(config)), "local fields identify no run"
    (found,) = {one["place"] for one in inputs.describe(config).values()}
    assert found == str(module / "private_parts.py"), "its code is an input"
    assert restore_config(to_plain(config), []).task.note == "hello"
    assert os.environ[plugins.VARIABLE] == "private_parts", "for the processes of a launcher"


def test_a_record_of_private_parts_without_them(module):
    words = plugins.take_plugins(["plugin=private_parts", *CHOICE])
    record = to_plain(load_config(compose.compose_config(words), words))
    compose.FOLDERS.clear()
    with pytest.raises(ConfigError, match="plugin=MODULE, if it is your own"):
        restore_config(record, [])


def test_arguments_without_plugins_are_left_alone():
    assert plugins.take_plugins(CHOICE) == CHOICE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be imported (No module named 'private_parts')"),
        ("1 / 0", "cannot be imported (division by zero)"),
        ("from experiments.tasks import Toy", "no dataclass of Method, Model or Task"),
        (MODULE.replace("PrivateToy", "Glue"), "there is a task class Glue already"),
    ],
)
def test_modules_that_add_nothing(text, said, module):
    import shutil

    shutil.rmtree(module / "conf")
    (module / "private_parts.py").unlink()
    if text is not None:
        (module / "private_parts.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        plugins.take_plugins(["plugin=private_parts"])
    assert str(caught.value).startswith("plugin=private_parts: ") and said in str(caught.value)
