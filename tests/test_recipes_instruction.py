"""Recipes of Table 4: Table 11 with its columns exchanged, and the authors' scripts."""

import re

import pytest
import yaml

from experiments.config.compose import CONF
from experiments.models import Quantization
from experiments.results.identity import to_plain

RECIPES = CONF / "recipe"
PAPER = sorted(path.stem for path in RECIPES.glob("paper/*_llama*.yaml"))
AUTHORS = sorted(path.stem for path in RECIPES.glob("authors/*_llama*.yaml"))
MODELS = ["llama1_13b", "llama1_7b", "llama2_13b", "llama2_7b"]


def run_of(compose, source, recipe, task="alpaca"):
    model = next(model for model in MODELS if recipe.endswith(f"_{model}"))
    method = recipe.removesuffix(f"_{model}")
    return compose([f"source={source}", f"model={model}", f"method={method}", f"task={task}"])


def test_every_cell_of_table_4_has_a_recipe():
    assert {f"{method}_{model}" for method in ("fourierft", "lora", "lora_all") for model in MODELS}
    assert PAPER == sorted(
        f"{method}_{model}" for method in ("fourierft", "lora", "lora_all") for model in MODELS
    )
    assert AUTHORS == [f"fourierft_{model}" for model in MODELS]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", PAPER)
def test_table_11(recipe, compose):
    run = run_of(compose, "paper", recipe)
    train = to_plain(run.train)
    assert (run.recipe, run.variant, list(run.problems())) == ("paper", "", [])
    assert (train["epochs"], train["batch_size"], train["accumulation"]) == (1, 16, 4)
    assert (train["warmup_ratio"], train["schedule"], train["select"]) == (0.06, "linear", "last")
    assert (train["weight_decay"], train["max_grad_norm"]) == (0.0, 1.0)
    assert run.model.quantization is Quantization.nf4 and run.model.dtype.name == "bf16"
    assert run.task.max_length == 512
    if run.method.name == "fourierft":
        assert (run.method.n, run.method.alpha, train["learning_rate"]) == (1000, 300, 0.03)
        assert run.method.entry_seed == 2024
    else:
        assert (run.method.r, run.method.alpha, train["learning_rate"]) == (64, 16, 0.003)
    wide = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert run.method.targets == (wide if run.method.name == "lora_all" else ["q_proj", "v_proj"])


# Epochs, learning rate, weight decay of the four scripts.
SCRIPTS = {
    "llama1_7b": (2, 0.1, 0.01),
    "llama1_13b": (3, 0.1, 0.02),
    "llama2_7b": (3, 0.05, 0.002),
    "llama2_13b": (3, 0.05, 0.002),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_scripts_of_the_authors(model, compose):
    run = run_of(compose, "authors", f"fourierft_{model}", "alpaca_cleaned")
    train = run.train
    named = "orientation=algorithm1,source=authors"
    assert (run.recipe, run.variant, list(run.problems())) == ("authors", named, [])
    assert (train.epochs, train.learning_rate, train.weight_decay) == SCRIPTS[model]
    assert (train.batch_size, train.warmup_ratio, train.max_grad_norm) == (1, 0.05, 1.0)
    assert run.model.quantization is None and run.model.dtype.name == "bf16"
    assert (run.method.n, run.method.alpha) == (1000, 300)


@pytest.mark.parametrize(
    "path",
    [
        f"{source}/{name}"
        for source, names in (("paper", PAPER), ("authors", AUTHORS))
        for name in names
    ],
)
def test_headers(path):
    first, second, *_ = (RECIPES / f"{path}.yaml").read_text().splitlines()
    assert first == "# @package _global_" and ("2405.03003" in second or "4986a28" in second)
    assert yaml.safe_load((RECIPES / f"{path}.yaml").read_text())["recipe"] == path.split("/")[0]


OF_LANGUAGE = {
    path.relative_to(RECIPES).with_suffix("").as_posix(): ["e2e"]
    if "gpt2" in path.stem
    else ["alpaca", "alpaca_cleaned"]
    for path in sorted(RECIPES.glob("*/*.yaml"))
    if path.parent.name != "other"
    and any(word in path.stem for word in ("gpt2", "llama", "stories"))
}
for name in ("fourierft", "full", "lora"):  # tried on E2E as well
    OF_LANGUAGE[f"ours/{name}_stories260k"].append("e2e")


def rate_of(recipe):
    """What a recipe's file, or the one it begins with, gives as the learning rate."""
    found = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    rate = found.get("train", {}).get("learning_rate")
    return rate or rate_of(found["defaults"][0].removeprefix("/recipe/"))


@pytest.mark.parametrize("recipe", OF_LANGUAGE)
def test_recipes_of_language_models_know_their_tasks_alone(recipe):
    """By the table of the one number that no run can do without."""
    (table,) = re.findall(r"\$\{by_task:\{(.*)\}\}", rate_of(recipe))
    others = ["other"] if recipe.startswith("ours/") else []
    assert re.findall(r"(\w+):", table) == OF_LANGUAGE[recipe] + others


@pytest.mark.parametrize(
    "recipe", ["paper/fourierft_llama2_7b", "paper/lora_gpt2_medium", "ours/full_gpt2_tiny"]
)
def test_a_task_that_a_recipe_is_not_of_takes_values_of_ours(recipe, compose):
    source, _, name = recipe.partition("/")
    method, _, model = name.partition("_")
    other = "alpaca" if OF_LANGUAGE[recipe] == ["e2e"] else "e2e"
    run = compose([f"source={source}", f"model={model}", f"method={method}", f"task={other}"])
    own = compose([f"model={model}", f"method={method}", f"task={OF_LANGUAGE[recipe][0]}"])
    assert run.recipe == "ours" and run.train.learning_rate == own.train.learning_rate


def test_random_weights_are_rehearsed_without_quantisation(compose):
    asked = ["model=llama2_7b", "task=alpaca", "method=lora", "model.pretrained=false"]
    assert compose([*asked, "profile=smoke"]).model.quantization is None


@pytest.mark.slow
def test_a_small_llama_of_random_weights_rehearses_table_4(compose, data_folder, tmp_path):
    """Its sizes are cut for the test; all else is Table 11's."""
    from experiments.run.main import run

    sizes = ("hidden_size=64", "num_hidden_layers=2", "num_attention_heads=4")
    given = [
        *("model=llama2_7b", "model.pretrained=false", "task=alpaca", "method=fourierft"),
        *("profile=smoke", f"task.path={data_folder}/alpaca", f"task.questions={data_folder}"),
        *("task.eval_rows=2", "task.max_new_tokens=2", "task.validation_rows=8"),
        *(f"model.sizes.{size}" for size in (*sizes, "intermediate_size=64")),
        *("train.device=cpu", f"output={tmp_path}"),
    ]
    record = run(compose(given))
    assert record.config["model"]["quantization"] is None
    assert record.environment["rows"]["asked vicuna"] == 2
