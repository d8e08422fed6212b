"""Composing and checking a run: every option, every mistake, what a run is, what it costs."""

import os
import re
import resource
import socket
import subprocess
import sys
import time

import pytest
import yaml

from experiments.config import compose as config
from experiments.config.compose import compose_config, register
from experiments.config.run_config import Config, Mode
from experiments.errors import ConfigError
from experiments.results.identity import get_run_dir, to_plain

CONF = config.CONF
TASKS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("task/*.yaml"))}
MODELS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("model/*.yaml"))}
NAMED = ("model", "task", "method", "tracking")
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
OPTIONS = [(group, name) for group, name in OPTIONS if group not in ("contest", "search")]
SIZES = sorted((path.parent.name, path.stem) for path in CONF.glob("sizes/*/*.yaml"))
BASE = ["model=roberta_base", "task=cola"]
TOY = ["model=mlp", "task=toy"]
KINDS = {"toy": "points", "dreambooth": "denoising"} | dict.fromkeys(
    ("e2e", "alpaca", "alpaca_cleaned"), "language"
)
TRAIN = ["train.epochs=1", "train.batch_size=8", "train.learning_rate=0.1"]


def composed(*overrides):
    register()
    return compose_config(list(overrides))


def refused(compose, *overrides):
    """The ConfigError that refuses the run."""
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value


def head(task):
    """Kind of head that a conf/task file asks for."""
    if "/schema/task/images@_here_" in TASKS[task]["defaults"]:
        return "images"
    if "labels" in TASKS[task]:
        return "regression" if TASKS[task]["labels"] == 1 else "classification"
    return KINDS.get(task, "none")


def trainable(model):
    return [task for task in TASKS if head(task) in MODELS[model]["heads"] and head(task) != "none"]


# Every option


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=map("/".join, OPTIONS))
def test_every_option_composes(group, name):
    bare = ["source=none", "task=none"] if group == "model" else []
    cfg = composed(*bare, f"{group}={name}")
    if group in NAMED:
        assert cfg[group].name == name
    elif group in ("source", "profile"):
        assert cfg[group] == name
    elif group == "experiment":
        assert name.startswith(cfg.experiment)
    elif group == "rehearsal":
        pass  # by folder, see test_profile_smoke_is_small
    else:
        assert (group, name) == ("train", "default"), "a new group: say here what names it"


@pytest.mark.parametrize(
    ("group", "name"),
    [(path.parent.name, path.stem) for path in sorted(CONF.glob("hydra/*/*.yaml"))],
)
def test_every_launcher_composes(group, name):
    """With every key known to the plugin that it is for, which must be installed."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import get_class

    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = compose("train", [f"hydra/{group}={name}"], return_hydra_config=True).hydra[group]
    assert get_class(found._target_).__name__ in ("JoblibLauncher", "SlurmLauncher")
    if "signal_delay_s" in found:
        assert 60 * found.timeout_min > 2 * found.signal_delay_s


@pytest.mark.parametrize(("experiment", "method"), SIZES, ids=map("/".join, SIZES))
def test_sizes_of_an_experiment_reach_its_runs(experiment, method):
    sizes = yaml.safe_load((CONF / "sizes" / experiment / f"{method}.yaml").read_text())
    models = swept(experiment)["model"][::4]
    found = {}
    for model in models:
        cfg = composed(f"experiment={experiment}", f"method={method}", f"model={model}")
        found[model] = {key: cfg.method[key] for key in sizes["method"]}
    assert all(value is not None for values in found.values() for value in values.values())
    assert len({str(values) for values in found.values()}) > 1, "the same for every model"


def swept(experiment):
    """Values of each sweep parameter of conf/experiment/<experiment>.yaml, without the seeds."""
    file = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())
    params = file.get("hydra", {}).get("sweeper", {}).get("params", {})
    return {key: str(values).split(",") for key, values in params.items() if key != "seed"}


OURS = sorted(path.stem for path in CONF.glob("recipe/ours/*.yaml"))


def ours(recipe):
    model = next(model for model in MODELS if recipe.endswith(f"_{model}"))
    method = recipe.removesuffix(f"_{model}")
    extra = ["method.peft_type=VERA"] if method == "peft" else []
    if "architecture" in MODELS[model] and MODELS[model]["architecture"] is None:
        extra.append("model.path=x")
    return model, method, extra


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OURS)
def test_every_recipe_of_ours_is_a_run(recipe, compose):
    """Each with its share of the tasks, so that all are met; paper and authors: test_recipes."""
    model, method, extra = ours(recipe)
    mine = [name for name in OURS if ours(name)[0] == model]
    tasks = trainable(model)
    if "language" in MODELS[model]["heads"]:  # test_recipes_instruction: the others are refused
        tasks = [task for task in tasks if (task == "e2e") == ("gpt2" in model)]
    for task in tasks[mine.index(recipe) % len(tasks) :: len(mine)]:
        run = compose([f"model={model}", f"task={task}", f"method={method}", *extra])
        assert (run.model.name, run.task.name, run.method.name) == (model, task, method)
        assert (run.source, run.recipe) == ("paper", "ours")


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "model", "kind"),
    [
        (["model=mlp", "task=cola"], "mlp", "classification"),
        (["model=mlp", "task=stsb"], "mlp", "regression"),
        (["model=minilm", "task=toy"], "minilm", "points"),
        (
            ["model=gpt2_medium", "task=sst2", "method.n=9", "method.alpha=1", *TRAIN],
            "gpt2_medium",
            "classification",
        ),
    ],
)
def test_model_that_cannot_carry_the_head(overrides, model, kind, compose):
    error = refused(compose, *overrides)
    task = overrides[1]
    assert error.problems == [
        f"model={model}: {task} needs a {kind!r} head, this model offers "
        + ", ".join(map(repr, MODELS[model]["heads"]))
    ]


@pytest.mark.parametrize(
    ("model", "task", "kind"),
    [("minilm", "stsb", "regression"), ("sd_tiny", "dreambooth", "denoising")],
)
def test_labels_that_are_no_classes_cannot_be_smoothed(model, task, kind, compose):
    error = refused(compose, f"model={model}", f"task={task}", "train.label_smoothing=0.1")
    assert error.problems == [
        f"train.label_smoothing=0.1: task={task} predicts neither classes nor tokens but {kind} "
        "(allowed: 0)"
    ]


def test_task_without_data_is_for_counting(compose):
    error = refused(compose, "model=minilm", "task=none")
    assert len(error.problems) == 1
    assert "task=none" in error.problems[0] and "mode=count" in error.problems[0]
    assert compose(["model=minilm", "task=none", "mode=count"]).mode is Mode.count


def test_head_alone_needs_a_head(compose):
    error = refused(compose, *TOY, "method=linear_probe", *TRAIN)
    assert len(error.problems) == 1
    assert "method=linear_probe" in error.problems[0] and "model=mlp" in error.problems[0]


def test_all_problems_at_once(compose):
    error = refused(
        compose,
        *["model=gpt2_medium", "task=cola", "method.n=0", "method.alpha=-1", *TRAIN],
        *[
            "train.warmup_ratio=1",
            "train.device=tpu",
            "task.metrics=[accurac]",
            "method.targets=[]",
        ],
    )
    text = str(error)
    for key, value in {
        "method.n": "0",
        "method.alpha": "-1.0",
        "method.targets": "[]",
        "train.warmup_ratio": "1.0",
        "train.device": "tpu",
        "task.metrics": "accurac",
        "model": "gpt2_medium",
    }.items():
        assert f"\n  - {key}={value}: " in text
    assert len(error.problems) == 7


OUT_OF_RANGE = [
    *["method.n=-5", "method.alpha=0.0", "method.targets=[]"],
    *["method.frequency_bias.center=-1.0", "method.frequency_bias.bandwidth=0.0"],
    *["train.epochs=0.0", "train.batch_size=0", "train.learning_rate=-0.1", "train.epsilon=0.0"],
    *["train.max_steps=0", "train.head_learning_rate=0.0", "train.weight_decay=-1.0"],
    *["train.max_grad_norm=-1.0", "train.warmup_ratio=-0.1", "train.betas=[0.9, 1.0]"],
    *["train.eval_every=0.0", "train.eval_batch_size=0", "train.checkpoint_every=-1"],
    *["task.train_rows=0", "task.eval_rows=0", "task.points_per_class=0", "task.radius=0.0"],
    *["seed=-1", "row=-1", "output=", "task.max_length=3", "task.data_seed=-1", "model.width=0"],
    *["method.entry_seed=-1", "task.noise=inf", "task.classes=2147483648", "train.workers=-1"],
]


def test_values_out_of_range(compose):
    error = refused(compose, *TOY, *OUT_OF_RANGE)
    assert sorted(problem.partition(": ")[0] for problem in error.problems) == sorted(OUT_OF_RANGE)
    assert compose(TOY).variant == "", "none of them is about the plain run"


def test_values_out_of_range_one_by_one(compose):
    for override in ("method.n=0", "train.accumulation=7", "train.betas=[0.9]"):
        error = refused(compose, *TOY, override)
        assert [problem.partition(": ")[0] for problem in error.problems] == [override]


def test_ranges_hold_whatever_the_task(compose):
    for choice in (["task=none", "mode=count"], ["model=sd_tiny", "task=dreambooth"]):
        error = refused(compose, *choice, "source=ours", "task.max_length=-1", "seed=5000000000")
        said = "\n".join(error.problems)
        assert "task.max_length=-1: must be at least 4" in said
        assert "seed=5000000000: must be at most 2,147,483,647" in said


def test_a_recipes_alpha_is_no_norm(compose):
    choice = ["model=minilm", "task=sst2", "method=fourierft", "method.scaling=norm"]
    [problem] = refused(compose, *choice).problems
    assert problem.startswith("method.alpha=100: ") and "up to 10" in problem
    compose([*choice, "method.alpha=0.18"])


def test_value_out_of_range_of_glue_and_lora(compose):
    changes = ["task.max_length=3", "method.r=0", "method.dropout=1.0"]
    error = refused(compose, "model=minilm", "task=sst2", "method=lora", *changes)
    assert [problem.partition(":")[0] for problem in error.problems] == changes


@pytest.mark.parametrize(
    ("overrides", "recipe", "missing"),
    [
        (
            ["model=causal_lm", "task=none"],
            "paper/fourierft_causal_lm",
            "method.alpha, method.n, train.batch_size",
        ),
        (
            [*BASE, "method=lora", "source=authors"],
            "authors/lora_roberta_base",
            "method.alpha, method.r, train",
        ),
        (
            [*BASE, "source=none"],
            "none/fourierft_roberta_base",
            "train.batch_size, train.epochs, train.learning_rate",
        ),
        (
            [*BASE, "method=linear_probe"],
            "paper/linear_probe_roberta_base",
            "train.batch_size, train.epochs",
        ),
    ],
)
def test_missing_recipe_names_its_file(overrides, recipe, missing, compose):
    error = refused(compose, *overrides)
    assert len(error.problems) == 1
    assert f"conf/recipe/{recipe}.yaml" in error.problems[0] and missing in error.problems[0]
    general = "defaults: [/recipe/ours/fourierft_decoder]" in error.problems[0]
    assert general == ("model=causal_lm" in overrides), "values for any network of its kind"


def test_values_on_the_command_line_replace_a_recipe(compose):
    run = compose([*BASE, "source=none", "method.n=7", "method.alpha=2", *TRAIN])
    assert (run.recipe, run.method.n, run.train.epochs) == ("none", 7, 1)
    assert "source=none" in run.variant


@pytest.mark.parametrize("source", ["paper", "printed", "authors", "ours"])
def test_task_that_the_paper_has_not_takes_values_of_ours(source, compose):
    run = compose(["model=roberta_base", "task=qqp", f"source={source}"])
    assert (run.recipe, run.train.epochs, run.method.n) == ("ours", 10, 1000)
    assert compose(["model=roberta_base", "task=sst2", "source=paper"]).train.epochs == 40


def test_task_that_a_recipe_of_ours_has_not_takes_its_other_values(compose):
    run = compose(["model=roberta_base", "task=stsb", "method=vera"])
    other = compose(["model=roberta_base", "task=qqp", "method=lora"])
    assert (run.train.epochs, other.recipe) == (40, "paper")
    cfg = composed("model=roberta_base", "task=text", "method=vera")
    assert (cfg.train.epochs, cfg.train.batch_size) == (10, 32)


def test_task_that_no_text_recipe_is_for(compose):
    """Recipes set task.max_length, which other tasks must bear."""
    (problem,) = refused(compose, "model=roberta_base", "task=toy").problems
    assert problem.startswith("model=roberta_base: task=toy needs a 'points' head")


def test_task_that_the_recipe_lacks_with_every_value_given(compose):
    given = ["method.alpha=3", "train.head_learning_rate=0.1", *TRAIN]
    assert compose(["model=roberta_base", "task=qqp", *given]).method.alpha == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.n=abc", ["method.n", "'abc'", "Integer"]),
        ("train.epochs=many", ["train.epochs", "'many'", "Float"]),
        ("train.select=worst", ["train.select", "worst", "best", "last"]),
        ("mode=test", ["mode", "test", "train", "count"]),
        ("method.frequency=3", ["'frequency' not in 'FourierFT'", "method.frequency"]),
        ("train.lr=3", ["'lr' not in 'Train'", "train.lr"]),
        ("nonsense=3", ["'nonsense' not in 'Config'"]),
        ("method=fouri", ["method/fouri", "fourierft", "lora"]),
        ("source=journal", ["source/journal", "paper", "authors"]),
    ],
)
def test_wrong_type_and_unknown_key_are_refused_when_composing(override, words):
    with pytest.raises(ConfigError) as caught:
        composed(*TOY, override)
    text = str(caught.value)
    assert [word for word in words if word not in text] == []


def test_command_line_says_what_is_wrong_without_a_traceback():
    done = program("train.py", *BASE, "method.n=0", "method.alpha=-1")
    assert done.returncode == 1
    assert "method.n=0: must be at least 1" in done.stderr
    assert "method.alpha=-1.0: must be positive" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


# What a run is called, and what it is


def test_command_line_wins_over_the_recipe(compose):
    changes = ["train.epochs=3", "method.alpha=7", "method.n=10", "task.max_length=64"]
    run = compose([*BASE, *changes])
    assert (run.train.epochs, run.method.alpha, run.method.n, run.task.max_length) == (3, 7, 10, 64)
    assert run.train.learning_rate == 0.12, "the rest is the recipe's"
    assert run.variant == "alpha=7,n=10,max_length=64,epochs=3"


def test_plain_runs_have_no_variant(compose):
    assert compose(BASE).variant == ""
    assert compose([*BASE, "source=paper", "method.alpha=49", "train.epochs=100"]).variant == ""


@pytest.mark.slow
def test_source_selects_the_recipe_and_shows(compose):
    large = ["model=roberta_large", "task=mrpc"]
    paper, authors = compose(large), compose([*large, "source=authors"])
    assert (paper.recipe, paper.method.alpha, paper.variant) == ("paper", 120, "")
    assert (authors.recipe, authors.method.alpha, authors.variant) == (
        "authors",
        99,
        "orientation=algorithm1,source=authors",
    )
    both = compose([*large, "source=authors", "method.n=10"])
    assert both.variant == "n=10,orientation=algorithm1,source=authors"
    earlier = compose([*large, "source=authors", "method.orientation=null"])
    assert earlier.variant == "source=authors", "the folder of runs from before there were two"
    assert "method.orientation" not in Config.identify(to_plain(earlier))
    assert Config.identify(to_plain(authors))["method.orientation"] == "algorithm1"


def test_minilm_falls_back_to_ours(compose):
    for source in ("paper", "authors", "ours"):
        run = compose(["model=minilm", "task=sst2", f"source={source}"])
        assert (run.source, run.recipe, run.variant) == (source, "ours", "")


def identity(run):
    return Config.identify(to_plain(run))


LOCAL = [
    *["model.path=a", "task.path=b", "train.device=cpu", "train.accumulation=4"],
    *["train.eval_batch_size=3", "train.checkpoint_every=7", "force=true", "offline=true"],
    *["output=elsewhere", "tracking=tensorboard", "method.memory=recompute"],
    "method.gradient=dense",
]


def test_local_keys_never_change_what_a_run_is(compose):
    plain, moved = compose(BASE), compose([*BASE, *LOCAL])
    assert (moved.model.path, moved.train.device, moved.output, moved.force) == (
        "a",
        "cpu",
        "elsewhere",
        True,
    )
    assert moved.variant == plain.variant == ""
    assert identity(moved) == identity(plain)
    places = get_run_dir(moved), get_run_dir(plain)
    assert places[0].relative_to("elsewhere") == places[1].relative_to("outputs")


def test_experiment_never_changes_what_a_run_is(compose):
    plain, cell = compose(TOY), compose(["experiment=figure7"])
    assert cell.experiment == "figure7"
    assert cell.variant == plain.variant and identity(cell) == identity(plain)


SCIENTIFIC = {
    "method.basis": "dct",
    "method.precision": "exact",
    "method.n": 10,
    "method.entry_seed": 5,
    "method.init": "zeros",
    "method.scaling": "norm",
    "method.alpha": 0.2,
    "method.frequency_bias.center": 3.0,
    "method.targets": ["key"],
    "train.precision": "bf16",
    "train.max_grad_norm": 2.0,
    "train.weight_decay": 0.5,
    "train.betas": [0.5, 0.9],
    "train.max_steps": 4,
    "train.eval_every": 2,
    "task.train_rows": 9,
    "task.max_length": 64,
    "model.pretrained": False,
}


def test_scientific_keys_change_what_a_run_is(compose):
    plain, other = (
        compose(BASE),
        compose([*BASE, *(f"{key}={value}" for key, value in SCIENTIFIC.items())]),
    )
    before, after = identity(plain), identity(other)
    assert before.keys() == after.keys()
    assert {key: after[key] for key in after if after[key] != before[key]} == SCIENTIFIC
    assert other.variant.startswith("alpha=0.2,basis=dct,entry_seed=5,center=3,init=zeros,n=10,")
    assert len(other.variant) < 120
    fewer = compose([*BASE, *(f"{key}={value}" for key, value in list(SCIENTIFIC.items())[:-1])])
    assert fewer.variant != other.variant, "cut names end in a hash of everything"


@pytest.mark.parametrize(
    ("override", "variant"),
    [
        ("method.n=10", "n=10"),
        ("train.precision=bf16", "precision=bf16"),
        ("train.head_learning_rate=null", "head_learning_rate=null"),
        ("model.pretrained=false", "pretrained=false"),
        ("profile=smoke", "profile=smoke"),
        ("seed=3", ""),
    ],
)
def test_variant_names_what_differs(override, variant, compose):
    plain, run = compose(BASE), compose([*BASE, override])
    assert run.variant == variant
    assert identity(run) != identity(plain)
    assert get_run_dir(run) != get_run_dir(plain)


def test_counts_are_told_from_training_and_by_their_sizes(compose):
    count, other = (compose([*BASE, "mode=count", f"method.n={n}"]) for n in (10, 20))
    assert "mode=count" in count.variant and "n=10" in count.variant
    assert len({get_run_dir(run) for run in (count, other, compose(BASE))}) == 3


def test_counting_needs_no_training_values(compose):
    given = ["model=causal_lm", "model.path=x", "task=none"]
    overrides = [*given, "method.n=10", "method.alpha=1"]
    assert "train.epochs" in refused(compose, *overrides).problems[0]
    run = compose([*overrides, "mode=count"])
    assert run.train is None and run.method.n == 10


def test_counting_needs_the_method_s_values(compose):
    error = refused(compose, "model=causal_lm", "task=none", "mode=count")
    assert "method.alpha, method.n:" in error.problems[0] and "train." not in error.problems[0]


# Weight: what composing costs


def program(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, timeout=120)


def cost(capsys, limit, what, *arguments):
    """Processor seconds of the best of three runs, or of the first within the limit.

    Wall time says more about the neighbours.
    """
    seconds = []
    for _ in range(3):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = program(*arguments)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds.append((used, wall))
        if used < limit:
            break
    with capsys.disabled():
        print(f"\n{what}: {min(seconds)[0]:.2f} s of processor, {min(seconds)[1]:.2f} s in all")
    return min(seconds)[0], done.stdout


LOAD = f"""
import sys
from experiments.config.compose import register, compose_config
from experiments.config.load import load_config
register()
run = load_config(compose_config({BASE}))
heavy = ("torch", "transformers", "peft", "datasets")
print(run.variant == "", [name for name in heavy if name in sys.modules])
"""


def test_composing_is_fast_and_imports_no_torch(capsys):
    seconds, output = cost(capsys, 2, "compose and check", "-c", LOAD)
    assert output == "True []\n"
    assert seconds < 2


def test_help_is_fast_and_names_the_options(capsys):
    seconds, output = cost(capsys, 3, "train.py --help", "train.py", "--help")
    for line in (
        "  method +.*fourierft.*lora",
        "  model +.*roberta_base",
        "  task +.*cola",
        "  source +authors",
    ):
        assert re.search(f"^{line}", output, re.M), line
    assert seconds < 1


# conftest


@pytest.mark.parametrize("how", ["connect", "connect_ex", "create_connection"])
def test_tests_stay_on_this_machine(how):
    away = ("192.0.2.1", 9)  # a documentation address, never routed
    with socket.socket() as here, socket.create_server(("127.0.0.1", 0)) as server:
        here.settimeout(1)
        connect = getattr(socket if how == "create_connection" else here, how)
        with pytest.raises(RuntimeError, match="192.0.2.1.*offline"):
            connect(away)
        socket.create_connection(server.getsockname(), timeout=1).close()
        assert here.connect_ex(server.getsockname()) == 0


def test_hub_libraries_are_offline():
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    assert constants.HF_HOME == os.environ["HF_HOME"] and "fourierft-tests-" in constants.HF_HOME


def test_real_data_folder(data_folder):
    assert (data_folder / "glue" / "rte").is_dir()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.group_by_length=true"], "task=toy has no text"),
        (["method.frequency_bias.bandwidth=50"], "no effect without"),
        (["train.learning_rate=inf"], "train.learning_rate=inf"),
        (["train.max_grad_norm=nan"], "train.max_grad_norm=nan"),
        (["method.alpha=nan"], "method.alpha=nan"),
        (["method=lora", "train.relative_rate=true"], "method=lora has one rate"),
        (
            ["model=minilm", "task=sst2", "train.relative_rate=true"]
            + ["train.head_learning_rate=null"],
            "the head needs a rate of its own",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(overrides, words, compose):
    (problem,) = refused(compose, *overrides).problems
    assert words in problem


def test_a_method_whose_schedule_is_missing_is_refused(compose):
    error = refused(compose, *TOY, "method=peft", "method.peft_type=ADALORA", *TRAIN)
    assert "ADALORA" in error.problems[0]
