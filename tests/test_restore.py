"""Objects from records: data that is neither interpolated nor imported, of options of conf/."""

from __future__ import annotations

import json
import sys

import pytest
from test_verify import folder, outputs, stored  # noqa: F401 (fixtures)

from experiments.commands import export
from experiments.commands.results import main as command
from experiments.config.compose import CONF
from experiments.config.restore import restore_config, restore_task
from experiments.errors import ConfigError
from experiments.results.identity import to_plain

ENCODER = ["model=minilm", "task=sst2", "method=lora"]


@pytest.mark.parametrize(
    "overrides",
    [
        ENCODER,
        ["model=gpt2_tiny", "task=e2e", "method=fourierft", "tracking=wandb"],
        ["model=vit_base", "task=dtd", "method=lora", "seed=3"],
        ["model=mlp", "task=toy", "method=lora"],
        ["model=roberta_base", "task=none", "method=lora", "mode=count"],
        ["model=roberta_base", "task=rte", "method=lora", "profile=smoke"],  # sizes of its own
        ["model=sd15", "task=dreambooth", "method=lora", "profile=smoke"],
    ],
)
def test_a_record_gives_its_configuration_again(compose, overrides):
    config = compose(overrides)
    assert restore_config(json.loads(json.dumps(to_plain(config))), []) == config


@pytest.mark.parametrize(
    "text", ["${oc.env:SECRET}", "a${b", "\\${x}", "\\\\${oc.env:SECRET}", "${model}", "$", "a=b"]
)
def test_texts_stand_for_themselves(compose, monkeypatch, text):
    monkeypatch.setenv("SECRET", "told")
    found = to_plain(compose(ENCODER))
    found["task"]["path"] = found["model"]["path"] = text
    config = restore_config(found, [])
    assert (config.task.path, config.model.path) == (text, text)
    assert restore_task(found["task"]).path == text
    del found["model"]["path"]
    assert restore_config(found, [f"model.path={text}"]).model.path == text
    assert restore_config(found, ["model.path=null", "offline=true"]).offline is True


def test_nothing_of_a_record_is_interpolated_where_it_is_printed(compose, monkeypatch):
    """Not where a number is wanted either: the error quotes what the record says."""
    monkeypatch.setenv("SECRET", "told")
    found = to_plain(compose(ENCODER))
    for key in ("train", "seed", "mode"):
        with pytest.raises(ConfigError) as caught:
            restore_config(found | {key: "${oc.env:SECRET}"}, [])
        assert "told" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        restore_task(found["task"] | {"train_rows": "${oc.env:SECRET}"})
    assert "told" not in str(caught.value)


@pytest.mark.parametrize("part", ["model", "task", "method", "tracking"])
@pytest.mark.parametrize(
    "name", ["../task/cola", "nothing", "", None, 3, ["cola"], "cola,mrpc", "cola.yaml", "${x}"]
)
def test_only_options_of_conf_have_a_name(compose, part, name):
    found = to_plain(compose(ENCODER))
    found[part]["name"] = name
    with pytest.raises(ConfigError, match=f"^{part}=.*unknown to this version"):
        restore_config(found, [])
    if part == "task":
        with pytest.raises(ConfigError, match="unknown to this version"):
            restore_task(found["task"])


def test_a_task_from_elsewhere_is_not_read(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [/schema/task/toy@_here_]\nname: mine\n")
    name = "/".join([*[".."] * len((CONF / "task").parts), *tmp_path.parts[1:], "mine"])
    assert (CONF / "task" / f"{name}.yaml").exists()
    with pytest.raises(ConfigError, match="unknown to this version"):
        restore_task({"name": name})


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A package that tells when it is imported."""
    package = tmp_path / "evil"
    (package / "part/model").mkdir(parents=True)
    (package / "part/__init__.py").write_text("")
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    assert "evil" not in sys.modules


@pytest.mark.parametrize("package", ["evil", "evil.part"])
def test_nothing_is_imported_from_a_record(compose, evil, package):
    found = to_plain(compose(ENCODER))
    found["model"]["package"] = package
    with pytest.raises(ConfigError, match="never imported"):
        restore_config(found, [])
    config = restore_config(found, ["model.path=elsewhere"])
    assert config.model.package == compose(ENCODER).model.package


def test_export_imports_nothing(folder, tmp_path, evil, capsys):  # noqa: F811
    record = json.loads((folder / "metrics.json").read_text())
    record["config"]["model"]["package"] = "evil.part"
    (folder / "metrics.json").write_text(json.dumps(record))
    assert export.main([str(folder), str(tmp_path / "out")]) == 1
    assert "never imported" in capsys.readouterr().err


def test_a_package_is_named_without_a_dot(compose):
    """To look for a part of a package, Python imports the package."""
    with pytest.raises(ConfigError, match=r"model.package=evil.part: must be"):
        compose([*ENCODER, "model.package=evil.part"])


def test_verify_prints_no_secret(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("SECRET", "never-told")
    record = json.loads((folder / "metrics.json").read_text())
    record["config"]["task"]["train_rows"] = "${oc.env:SECRET}"
    (folder / "metrics.json").write_text(json.dumps(record))
    assert command(["verify", outputs(folder)]) == 1
    assert "never-told" not in capsys.readouterr().err


def test_lists_hold_what_their_fields_say(compose):
    with pytest.raises(ConfigError, match=r"model\.std=.*must be a list of float"):
        compose(["model=vit_base", "task=dtd", "method=lora", "model.std=[{a: 1}, 1, 1]"])
    found = to_plain(compose(ENCODER))
    found["method"]["targets"] = [["query"], "value"]
    with pytest.raises(ConfigError, match="list of str"):
        restore_config(found, [])
    found["task"]["metrics"] = [{}]
    with pytest.raises(ConfigError, match="^task=sst2: "):
        restore_task(found["task"])
