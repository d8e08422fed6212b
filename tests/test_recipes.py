"""Recipes: each is a table that composes for every task it lists, and holds what was printed."""

import functools
import re

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.config.changes import find_plain
from experiments.config.compose import CONF, compose_config, register
from experiments.config.run_config import IDENTITY, Config
from experiments.results.identity import flatten, to_plain

RECIPES = CONF / "recipe"
SOURCES = ("paper", "authors")
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
OURS, OTHERS = (
    sorted(path.relative_to(RECIPES).as_posix()[: -len(".yaml")] for path in files)
    for files in (
        RECIPES.glob("ours/*.yaml"),
        [  # those of Table 4: test_recipes_instruction
            path
            for source in SOURCES
            for path in RECIPES.glob(f"{source}/*.yaml")
            if "_llama" not in path.stem
        ],
    )
)
SIX = ["sst2", "mrpc", "cola", "qnli", "rte", "stsb"]
EIGHT = [
    "oxford_pets",
    "stanford_cars",
    "cifar10",
    "dtd",
    "eurosat",
    "fgvc",
    "resisc45",
    "cifar100",
]
TASKS = {
    "roberta": SIX,
    "gpt2": ["e2e"],
    "vit": EIGHT,
    "sd15": ["dreambooth"],
}  # of a base model's first name
OF_GLUE, OF_E2E, OF_IMAGES = (
    [recipe for recipe in OTHERS if part in recipe] for part in ("roberta", "_gpt2_", "_vit_")
)
OTHERS.remove("authors/fourierft_sd15")  # no run without an alpha, see test_dreambooth
LOCAL = {f"{section}.{key}" for section, keys in IDENTITY.items() for key in keys}


def parts(recipe):
    """'paper/lora_roberta_base' -> source, method, model."""
    source, _, name = recipe.partition("/")
    model = next(model for model in MODELS if name.endswith(f"_{model}"))
    return source, name[: -len(model) - 1], model


def family(recipe):
    """First name of the recipe's base model: roberta, gpt2, vit."""
    return parts(recipe)[2].partition("_")[0]


def tasks_of(recipe):
    """Tasks that a recipe has values for."""
    extra = ["qqp"] * recipe.startswith("paper/lora_roberta")
    return TASKS[family(recipe)] + extra


def text(recipe):
    return (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")


def keys(recipe):
    """What the file itself sets."""
    return set(flatten(yaml.safe_load(text(recipe)))) - {"defaults"}


def tables(recipe):
    """Tasks of every by_task table of the file."""
    found = re.findall(r"by_task:\{(.*?)\}", text(recipe), re.S)
    return [re.findall(r"(\w+):", table) for table in found]


@functools.cache
def row(recipe, task):
    """The composed run of one cell, as a Config."""
    source, method, model = parts(recipe)
    register()
    choice = [f"source={source}", f"method={method}", f"model={model}", f"task={task}"]
    return OmegaConf.to_object(compose_config(choice))


def numbers(run):
    """Everything that a recipe may set, flat."""
    plain = Config.identify(to_plain(run))
    return {key: value for key, value in plain.items() if key != "recipe"}


@pytest.mark.parametrize("recipe", OTHERS)
@pytest.mark.slow
def test_every_row_composes_to_a_run_without_problems(recipe):
    source = parts(recipe)[0]
    for task in tasks_of(recipe):
        run = row(recipe, task)
        assert (run.recipe, run.task.name) == (source, task)
        assert list(run.problems()) == []


@pytest.mark.parametrize("recipe", [recipe for recipe in OTHERS if tables(recipe)])
def test_every_row_has_a_value_in_every_table(recipe):
    for tasks in tables(recipe):
        assert sorted(tasks) == sorted(tasks_of(recipe))
    assert len({tuple(tasks) for tasks in tables(recipe)}) == 1, "columns differ in order"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OTHERS)
def test_a_run_of_the_recipe_is_plain(recipe, compose):
    source, method, model = parts(recipe)
    task = tasks_of(recipe)[0]
    run = compose([f"source={source}", f"method={method}", f"model={model}", f"task={task}"])
    turned = "orientation=algorithm1," * ("method.orientation" in keys(recipe))
    assert run.variant == ("" if source == "paper" else f"{turned}source={source}")
    assert numbers(run) == numbers(row(recipe, task))


@pytest.mark.parametrize("recipe", OURS + OTHERS)
def test_header(recipe):
    first, second = text(recipe).splitlines()[:2]
    assert first == "# @package _global_"
    assert second.startswith("# ") and len(second) > 20, "no provenance"
    assert "override " not in text(recipe).replace("# ", "")
    assert yaml.safe_load(text(recipe))["recipe"] == parts(recipe)[0]


@pytest.mark.parametrize(
    ("method", "kind"), sorted({(parts(recipe)[1], family(recipe)) for recipe in OTHERS})
)
def test_recipes_of_a_method_state_the_same_keys(method, kind):
    same = {
        recipe: keys(recipe)
        for recipe in OTHERS
        if (parts(recipe)[1], family(recipe)) == (method, kind)
    }
    everything = set.union(*same.values()) - {"method.orientation"}  # the authors' code alone
    lacking = {recipe: everything - found for recipe, found in same.items()}
    assert {recipe: names for recipe, names in lacking.items() if names} == {}


@pytest.mark.parametrize("recipe", OTHERS)
def test_nothing_of_ours_shows_through(recipe):
    """Ours is composed first, as the fallback: whatever it sets, the other sources set too."""
    _, method, model = parts(recipe)
    for ours in OURS:
        same = [("_vit_" in one, "_sd" in one, "_gpt2" in one) for one in (ours, recipe)]
        # Settings of networks that no recipe of the paper is for may go their own ways.
        alone = parts(ours)[2] in ("smollm2_135m", "vit_s", "encoder", "decoder")
        if parts(ours)[1] == method and same[0] == same[1] and not alone:
            local = set() if parts(ours)[2] == model else LOCAL
            assert keys(ours) - local <= keys(recipe), ours


@pytest.mark.parametrize("recipe", OTHERS)
def test_recipes_state_all_that_moves_numbers(recipe):
    of_text = {"task.max_length"} if recipe in OF_GLUE else set()
    assert keys(recipe) >= of_text | {"method.alpha"} | {
        f"train.{key}"
        for key in (
            *("epochs", "batch_size", "learning_rate", "head_learning_rate", "weight_decay"),
            *("warmup_ratio", "schedule", "betas", "epsilon", "max_grad_norm", "select"),
            "group_by_length",
        )
    }


# Cells of Table 9 as printed, but for the misprints; and of the LoRA paper's Table 9.
# alpha, epochs, learning rate, head's learning rate, max_length, batch size
CELLS = {
    ("paper/fourierft_roberta_base", "cola"): (49, 100, 0.12, 0.008, 512, 32),
    ("paper/fourierft_roberta_base", "rte"): (110, 90, 0.09, 0.011, 512, 32),
    ("paper/fourierft_roberta_base", "stsb"): (84, 60, 0.09, 0.009, 512, 32),
    ("paper/fourierft_roberta_base", "sst2"): (140, 40, 0.05, 0.006, 512, 32),
    # Printed 0.01 and 141; scripts and logs have these.
    ("paper/fourierft_roberta_base", "qnli"): (29, 40, 0.1, 0.001, 512, 32),
    ("paper/fourierft_roberta_base", "mrpc"): (151, 30, 0.05, 0.006, 512, 32),
    ("paper/fourierft_roberta_large", "cola"): (120, 80, 0.043, 0.011, 256, 128),
    ("paper/fourierft_roberta_large", "sst2"): (99, 10, 0.043, 0.001, 128, 32),
    ("paper/fourierft_roberta_large", "mrpc"): (120, 30, 0.06, 0.001, 512, 32),
    ("paper/fourierft_roberta_large", "qnli"): (69, 30, 0.06, 0.005, 512, 32),
    ("authors/fourierft_roberta_large", "mrpc"): (99, 40, 0.06, 0.003, 512, 32),
    ("authors/fourierft_roberta_large", "stsb"): (121, 30, 0.07, 0.001, 512, 32),
    ("authors/fourierft_roberta_base", "qnli"): (29, 40, 0.1, 0.001, 512, 32),
    ("paper/lora_roberta_base", "cola"): (8, 80, 4e-4, None, 512, 32),
    ("paper/lora_roberta_base", "qqp"): (8, 25, 5e-4, None, 512, 16),
    ("paper/lora_roberta_large", "stsb"): (16, 10, 2e-4, None, 128, 4),
    ("paper/lora_roberta_large", "rte"): (16, 20, 4e-4, None, 128, 4),
    # Table 10, whose head rates have nothing to act on; and the LoRA paper's settings for GPT-2.
    ("paper/fourierft_gpt2_medium", "e2e"): (300, 5, 0.02, None, 512, 128),
    ("paper/fourierft_gpt2_large", "e2e"): (300, 5, 0.05, None, 512, 128),
    ("paper/lora_gpt2_medium", "e2e"): (32, 5, 2e-4, None, 512, 8),
    ("paper/lora_gpt2_large", "e2e"): (32, 5, 2e-4, None, 512, 8),
}


@pytest.mark.parametrize(("recipe", "task"), CELLS)
def test_cells(recipe, task):
    run = row(recipe, task)
    rates = (run.train.learning_rate, run.train.head_learning_rate)
    found = (run.method.alpha, run.train.epochs, *rates, run.task.max_length, run.train.batch_size)
    assert found == CELLS[recipe, task]


@pytest.mark.parametrize("recipe", OF_GLUE)
def test_what_all_tasks_of_glue_share(recipe):
    run = row(recipe, "rte")
    train = to_plain(run.train)
    assert (train["warmup_ratio"], train["schedule"], train["select"]) == (0.06, "linear", "best")
    assert (train["betas"], train["epsilon"], train["precision"]) == ([0.9, 0.999], 1e-8, "fp32")
    assert (train["eval_every"], train["max_steps"], train["group_by_length"]) == (1, None, False)
    if run.method.name == "fourierft":
        assert (train["weight_decay"], train["max_grad_norm"]) == (0.0, 0.0)
        assert (run.method.n, run.method.entry_seed) == (1000, 2024)
    else:
        assert (train["weight_decay"], train["max_grad_norm"]) == (0.1, 1.0)
        assert (run.method.r, run.method.dropout) == (8, 0.0)


@pytest.mark.parametrize("recipe", OF_E2E)
def test_what_both_sizes_share_on_e2e(recipe):
    run = row(recipe, "e2e")
    train = to_plain(run.train)
    assert (train["label_smoothing"], train["schedule"], train["select"]) == (0.1, "linear", "last")
    assert (train["betas"], train["epsilon"], train["max_grad_norm"]) == ([0.9, 0.999], 1e-6, 0.0)
    assert (run.task.beams, run.task.length_penalty, run.task.no_repeat_ngram) == (10, 0.9, 4)
    decay = 0.03 if recipe.endswith("fourierft_gpt2_large") else 0.01
    assert train["weight_decay"] == decay
    if run.method.name == "fourierft":
        assert (run.method.n, run.method.entry_seed, train["warmup_ratio"]) == (1000, 2024, 0.06)
    else:
        assert (run.method.r, run.method.dropout) == (4, 0.1)
        steps = 5 * -(-42061 // 8)
        assert round(train["warmup_ratio"] * steps) == 500


def test_paper_and_authors_differ_in_mrpc_on_the_large_model_only():
    differing = {}
    for model in ("roberta_base", "roberta_large"):
        for task in SIX:
            paper = numbers(row(f"paper/fourierft_{model}", task))
            authors = numbers(row(f"authors/fourierft_{model}", task))
            assert authors.pop("method.orientation") == "algorithm1"
            assert paper.keys() == authors.keys()
            for key, value in paper.items():
                if value != authors[key]:
                    differing[model, task, key] = (value, authors[key])
    assert differing == {
        ("roberta_large", "mrpc", "train.epochs"): (30, 40),
        ("roberta_large", "mrpc", "train.head_learning_rate"): (0.001, 0.003),
        ("roberta_large", "mrpc", "method.alpha"): (120, 99),
    }


# Cells of Table 12: learning rate, head's learning rate, weight decay.
TABLE12 = {
    "oxford_pets": (0.3, 1e-3, 8e-4),
    "stanford_cars": (0.3, 1e-3, 4e-5),
    "cifar10": (0.3, 1e-3, 9e-5),
    "dtd": (0.3, 1e-3, 7e-5),
    "eurosat": (0.2, 8e-4, 3e-4),
    "fgvc": (0.3, 1e-3, 7e-5),
    "resisc45": (0.3, 1e-3, 3e-4),
    "cifar100": (0.2, 7e-4, 1e-4),
}


@pytest.mark.parametrize("task", EIGHT)
@pytest.mark.parametrize(
    "recipe", [*OF_IMAGES, pytest.param("ours/fourierft_vit_large", marks=pytest.mark.slow)]
)
def test_cells_of_table_12(recipe, task):
    run = row(recipe, task)
    train = run.train
    rates = (train.learning_rate, train.head_learning_rate, train.weight_decay)
    assert rates == TABLE12[task] and run.recipe == parts(recipe)[0]
    assert (run.method.n, run.method.alpha, run.method.entry_seed) == (3000, 300, 2024)


@pytest.mark.parametrize("recipe", [*OF_IMAGES, *(name for name in OURS if "vit_base" in name)])
def test_what_all_image_recipes_share(recipe):
    train = to_plain(row(recipe, "dtd").train)
    assert (train["epochs"], train["batch_size"], train["accumulation"]) == (10, 200, 4)
    assert (train["warmup_ratio"], train["schedule"], train["select"]) == (0.0, "linear", "best")
    assert (train["max_grad_norm"], train["betas"]) == (1.0, [0.9, 0.999])


def test_paper_and_authors_agree_on_images():
    for task in EIGHT:
        paper, authors = (numbers(row(f"{one}/fourierft_vit_base", task)) for one in SOURCES)
        assert paper | {"method.orientation": "algorithm1"} == authors


@pytest.mark.parametrize("method", ["fourierft", "lora", "full", "linear_probe"])
@pytest.mark.parametrize("model", ["vit_base", "vit_large"])
def test_every_cell_of_table_5_has_a_recipe(model, method, compose):
    run = compose([f"model={model}", f"method={method}", "task=fgvc"])
    assert run.recipe == ("paper" if (model, method) == ("vit_base", "fourierft") else "ours")
    assert run.variant == ""


def exchanged(alphas, rates):
    """Table 11's columns: corrected and printed value of each setting."""
    return {"method.alpha": alphas, "train.learning_rate": rates}


MISPRINTS = [
    ("fourierft", "roberta_base", "mrpc", {"method.alpha": (151, 141)}),
    ("fourierft", "roberta_base", "qnli", {"train.learning_rate": (0.1, 0.01)}),
    ("fourierft", "roberta_base", "rte", {}),
    ("fourierft", "roberta_large", "mrpc", {}),
    ("fourierft", "vit_base", "dtd", {"train.select": ("best", "last")}),
    ("fourierft", "llama2_13b", "alpaca", exchanged((300, 16), (0.03, 0.003))),
    ("lora", "llama1_7b", "alpaca", exchanged((16, 300), (0.003, 0.03))),
    ("lora_all", "llama1_7b", "alpaca", exchanged((16, 300), (0.003, 0.03))),
]


@pytest.mark.parametrize(("method", "model", "task", "printed"), MISPRINTS)
def test_printed_differs_from_paper_in_the_misprints_alone(method, model, task, printed):
    """Corrected value, then the table's own."""
    register()
    choice = (f"method={method}", f"model={model}", f"task={task}")
    (paper, decided), (recipe, literal) = find_plain(*choice), find_plain(*choice, "source=printed")
    assert (paper, recipe) == ("paper", "printed" if printed else "paper")
    assert decided.keys() == literal.keys()
    found = {k: (decided[k], literal[k]) for k in decided if decided[k] != literal[k]}
    assert found.pop("recipe", None) == (("paper", "printed") if printed else None)
    assert found == printed


def test_every_recipe_of_the_paper_has_a_printed_one():
    paper, printed = (
        {path.name for path in RECIPES.glob(f"{source}/*.yaml")} for source in ("paper", "printed")
    )
    assert paper == printed
    for name in printed:
        first, second = (RECIPES / "printed" / name).read_text(encoding="utf-8").splitlines()[:2]
        assert first == "# @package _global_" and second.startswith("# 2405.03003")
