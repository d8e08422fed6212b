"""How often a run is composed, and what tells it from the plain one."""

import re

import pytest

from experiments.config import changes, flags, overrides
from experiments.config.compose import CONF, compose_config, register
from experiments.config.load import load_config


@pytest.fixture
def compositions(monkeypatch):
    """A list that grows by one with each composition."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    made, compose_once = [], ConfigLoaderImpl.load_configuration

    def counted(*args, **kwargs):
        made.append(kwargs)
        return compose_once(*args, **kwargs)

    register()
    changes.find_plain.cache_clear()
    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return made


@pytest.mark.parametrize(
    ("typed", "number", "variant"),
    [
        ([], 1, ""),
        (["model=minilm", "task=sst2", "method=lora", "seed=3", "task.path=/tmp"], 1, ""),
        (["--run", "profile=smoke", "tracking=wandb", "tracking.mode=offline"], 1, "profile=smoke"),
        (["train.device=cpu", "output=x", "train.epochs=3"], 2, "epochs=3"),
        (["source=ours"], 2, None),
        (["mode=count", "seed=1"], 2, None),
    ],
)
def test_a_run_is_composed_once_and_the_plain_one_only_where_it_may_differ(
    compositions, typed, number, variant
):
    problems, cfg = overrides.compose_checked(typed)
    run = load_config(cfg, flags.parse_arguments(typed).overrides)
    assert problems == [] and len(compositions) == number
    assert (
        run.variant
        == (load_config(cfg).variant if variant is None else variant)
        == load_config(cfg).variant
    )


@pytest.mark.parametrize(
    "typed",
    [
        ["seed=0,1", "-m"],
        ["--multirun"],
        ["--cfg=job"],
        ["hydra.job.name=x"],
        ["output=${hydra:job.name}"],
        ["experiment=table1"],
        ["--config-dir=/tmp"],
    ],
)
def test_hydra_composes_sweeps_and_what_its_own_flags_ask_for(typed):
    register()
    assert overrides.compose_checked(typed) == ([], None)


def test_a_new_key_of_the_models_recipe_follows_its_path(compositions, tmp_path):
    """The weights' folder is part of what an own language model is."""
    cfg = compose_config(["model=causal_lm", "task=alpaca", f"model.path={tmp_path}"])
    assert changes.find_changes(cfg, [f"model.path={tmp_path}"]) == changes.find_changes(cfg)


def test_nothing_in_conf_follows_from_a_neutral_key():
    for path in CONF.rglob("*.yaml"):
        text = "".join(line.partition("#")[0] for line in path.read_text().splitlines(True))
        found = set(re.findall(r"\$\{([\w.]+)\}", text))
        groups = {"model", "task", "method", "profile"}
        if path.name == "train.yaml":
            groups.add("output")  # of the folder of a sweep
        if "\ndata: ${" in text:
            groups.add("task.path")  # of the user's own data, which find_changes knows
        assert not found & (changes.NEUTRAL - groups), path
