"""What was typed: all mistakes at once, each with key, given value and what is allowed."""

import subprocess
import sys

import pytest

from experiments.config import help_page, overrides
from experiments.config.compose import CONF, register


@pytest.fixture(autouse=True)
def registered():
    register()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("method=fouri", ["method=fouri", "dylora, fourierft", "did you mean 'fourierft'"]),
        ("modle=mlp", ["modle=mlp", "unknown key 'modle'", "did you mean 'model'"]),
        ("method.n_freq=3", ["n_freq", "in method", "alpha, basis, entry_rows, entry_seed"]),
        ("method.n=abc", ["method.n=abc", "Integer"]),
        ("train.schedule=step", ["train.schedule=step", "linear, cosine, constant"]),
        ("method.frequency_bias.centre=1", ["'centre'", "bandwidth, center", "'center'"]),
        ("method.n.m=1", ["method.n.m=1", "n has no keys"]),
        ("+train.foo=1", ["+train.foo=1", "unknown key 'foo' in train"]),
        ("recipe=ours", ["recipe=ours", "source=…"]),
        ("model.name=roberta_large", ["model.name=roberta_large", "model=…"]),
        ("nonsense", ["nonsense", "key=value"]),
        ("method=lora,fouri", ["method=fouri", "fourierft"]),
        ("seed=0,x", ["seed=x", "Integer"]),
        ("model.sizes.x=1", ["model.sizes.x=1", "unknown key"]),
        ("--method.n=5", ["--method.n=5: write method.n=5"]),
        ("+model=gpt2", ["Multiple values for model"]),
        ("~task=toy", ["~task=toy: a choice cannot be deleted, a run needs one", "cola"]),
        ("~task", ["~task", "a run needs one"]),
        ("~profile", ["~profile", "omit it for none", "smoke"]),
        ("profile=null", ["profile=null", "omit it for none"]),
        ("method=null", ["method=null", "a run needs one", "fourierft"]),
        ("~method.n", ["~method.n", "does not support deletion"]),
        ("++profile=smoke", ["++profile=smoke: write profile=smoke"]),
        ("source=1", ["source=1: unknown", "authors, none, ours, paper"]),
        ("profile=[1,2]", ["profile=[1,2]: one option, or several with profile=a,b and -m"]),
        ("method.n=glob(*)", ["method.n=glob(*): has no values"]),
        ("model=../task/toy", ["model=../task/toy: unknown"]),
        ("model=mlp.yaml", ["model=mlp.yaml: unknown", "did you mean 'mlp'"]),
        ("model@x=mlp", ["model@x=mlp: a choice takes no package, write model=mlp"]),
        ("method.n@x=3", ["method.n@x=3: a value takes no package, write method.n=…"]),
        ("schema/model=mlp", ["follows from model=…"]),
        ("rehearsal/model=gpt2", ["follows from profile=…"]),
        ("variant=x", ["variant=x: is computed"]),
        ("method={zzz: 1}", ["zzz"]),
        ("hydra.mode=foo", ["hydra.mode=foo", "RUN, MULTIRUN"]),
        ("hydra/launcher=foo", ["hydra/launcher/foo", "slurm"]),
        ("hydra=1", ["Got int"]),
        ("seed=range(1000000000)", ["1,000,000,000 values"]),
        ("seed=range(200) train.epochs=range(1,100)".split(), ["19,800 runs in one sweep"]),
        ("=5", ["unknown key ''"]),
        ("train.epochs.x=1", ["epochs has no keys"]),
        (
            ["task=text", "model=minilm", "task.path=x.csv", "task.columns=txt"],
            ["task.columns=txt: must be a list, write task.columns=[txt]"],
        ),
    ],
)
def test_each_mistake_says_key_value_and_what_is_allowed(typed, words):
    typed = typed if isinstance(typed, list) else [typed]
    (line,) = overrides.find_problems([*typed, "--multirun"])
    for word in words:
        assert word in line


def test_a_long_value_is_shown_in_part():
    (line,) = overrides.find_problems([f"model.width={'a' * 9000}"])
    assert "could not be converted to Integer" in line and len(line) < 1000


def test_all_mistakes_come_together():
    found = overrides.find_problems(
        ["modle=x", "method.n=abc", "task=kola", "train.epochs=", "junk"]
    )
    assert len(found) == 5


@pytest.mark.parametrize(
    "typed",
    [
        ["model=roberta_base", "task=cola", "method=fourierft", "method.n=200"],
        ["method=peft", "method.peft_type=VERA", "+method.fields.r=3", "train.epochs=2"],
        ["method=peft", "+method.fields={r: 256}"],
        ["method=fourierft,lora", "seed=range(0,5)", "-m"],
        ["experiment=table1"],
        ["profile=smoke", "model=roberta_base", "task=rte"],
        ["hydra.verbose=true", "--cfg", "job", "--resolve"],
        ["-c", "job", "--resolve", "seed=1"],
        ["train.max_steps=null", "task.path=some/folder"],
        ["model=roberta_base", "task=cola", "+model.sizes.num_hidden_layers=2"],
        ["+model=mlp"],
        ["method.n=range(1,5)", "seed=choice(1,2)", "-m"],
        ["method=glob(lora*)", "-m", "model=roberta_base", "task=cola"],
        ["train={epochs: 3}", "seed=1", "seed=2"],
        ["--config-name=train", "--info", "searchpath"],
    ],
)
def test_what_fits_is_let_through(typed):
    assert overrides.find_problems(typed) == []


def test_several_values_ask_for_a_sweep():
    for typed in (["seed=0,1"], ["seed=range(0,2)", "method.n=x"]):
        assert f"{typed[0]}: several values, add -m" in overrides.compose_checked(typed)[0][0]
    for asked in (["-m"], ["hydra.mode=MULTIRUN"]):
        assert overrides.compose_checked(["seed=0,1", *asked]) == ([], None)


def test_help_names_every_option_of_every_choice():
    page = help_page.format_help()
    for group in ("model", "task", "method", "experiment", "tracking", "source", "profile"):
        for path in (CONF / group).glob("*.yaml"):
            assert path.stem in page
    assert "method.basis        fourier, random, orthogonal, dct, hartley" in page
    assert "train.schedule" in page
    assert "method.memory       auto, batched, cache, kept, save, recompute, spectral" in page


def test_launchers_that_cannot_work_here_are_refused(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "sbatch not found" in overrides.find_problems(["hydra/launcher=slurm"])[0]
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/sbatch")
    given = ["hydra/launcher=slurm_gpu", "hydra.launcher.partition=gpu"]
    assert overrides.find_problems([*given, "seed=0,1", "-m"]) == []

    def missing(name):
        raise overrides.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    for option in (given[0], "hydra/launcher=processes"):
        (line,) = overrides.find_problems([option])
        assert line.startswith(f"{option}: needs hydra-") and "[sweep]" in line


@pytest.mark.parametrize(
    "given",
    [
        ["search=figure4"],
        ["search=figure4", "hydra.sweeper.n_trials=10"],
        ["search=nothing", "-m"],
        ["hydra/sweeper=tpe", "-m"],
        ["hydra/sweeper=optuna"],
        ["method.alpha=interval(1,2)", "train.learning_rate=tag(log, interval(1e-4, 1))"],
    ],
)
def test_a_search_is_refused_in_a_line_that_names_its_command(given):
    (line,) = overrides.find_problems(["task=toy", *given])
    assert line.startswith(given[0]) and "python -m experiments.search" in line
    found = overrides.find_problems(["modle=x", *given])
    assert len(found) == 2 and any("'modle'" in one for one in found)


def test_what_a_search_reads_is_let_through_to_it():
    assert overrides.find_problems(["search=x", "method.alpha=interval(1,2)"], searching=True) == []
    (line,) = overrides.find_problems(["search=x", "hydra/sweeper=tpe"], searching=True)
    assert line.startswith("hydra/sweeper=tpe")


def test_options_of_launchers_are_listed():
    page = help_page.format_help()
    assert "hydra/launcher processes, slurm, slurm_gpu" in page


def test_options_of_a_folder_of_ones_own(tmp_path):
    (tmp_path / "method").mkdir()
    text = (CONF / "method/lora.yaml").read_text().replace("name: lora", "name: mine")
    (tmp_path / "method/mine.yaml").write_text(text)
    for typed in ([f"--config-dir={tmp_path}"], [f"hydra.searchpath=[file://{tmp_path}]"]):
        assert (
            overrides.find_problems([*typed, "method=mine", "method.r=2", "method.alpha=2"]) == []
        )
        (line,) = overrides.find_problems([*typed, "method=mime"])
        assert "mine" in line
    assert "unknown" in overrides.find_problems(["method=mine"])[0]


def test_the_name_of_an_option_is_that_of_its_file(tmp_path):
    (tmp_path / "model").mkdir()
    option = tmp_path / "model" / "mine.yaml"
    for name in ("mlp", "mine"):
        option.write_text(
            (CONF / "model" / "mlp.yaml").read_text().replace("name: mlp", f"name: {name}")
        )
        found, _ = overrides.compose_checked([f"--config-dir={tmp_path}", "model=mine"])
        wrong = ["model/mine.yaml: name='mlp': must be 'mine'"]
        assert found == (wrong if name == "mlp" else [])


def test_a_name_with_a_dot_or_an_open_reference(tmp_path):
    (tmp_path / "model").mkdir()
    text = (CONF / "model" / "mlp.yaml").read_text().replace("name: mlp", "name: mlp3.1")
    (tmp_path / "model" / "mlp3.1.yaml").write_text(text)
    assert overrides.find_problems([f"--config-dir={tmp_path}", "model=mlp3.1", "mode=count"]) == []
    (line,) = overrides.find_problems(["model.name=${nope}", "mode=count"])
    assert "a name follows from model=" in line


def test_help_needs_no_hydra():
    """It is answered before what takes most of a second to import."""
    program = "import sys; from experiments.config import help_page; help_page.format_help(); "
    program += "sys.exit(bool({'hydra', 'omegaconf', 'torch'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CONF.parent)
