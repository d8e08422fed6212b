"""Every command of the README and the docs works: it composes, or its target exists."""

import functools
import itertools
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from experiments.commands import results as of_results
from experiments.config import sweep
from experiments.config.compose import register
from experiments.judge import arguments
from experiments.report.pages import registry

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/runs.md",
    "docs/paper.md",
    "docs/library.md",
    "examples/README.md",
    "docs/validation.md",
    "docs/performance.md",
    "docs/judge.md",
    "docs/cluster.md",
    "docs/report.md",
    "docs/methods.md",
    "docs/own_data.md",
    "docs/own_models.md",
    "docs/architecture.md",
    "docs/serving.md",
]


def commands(start: str) -> list[str]:
    """Lines of the documents' shell blocks that begin with `start`.

    `test_contributing` runs those of CONTRIBUTING.md, which need the files that stand there.
    """
    found = []
    for name in [name for name in DOCUMENTS if name != "CONTRIBUTING.md"]:
        for block in re.findall(r" *```bash\n(.*?)```", (ROOT / name).read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith(start):
                    found.append(line.split("  #")[0].strip())
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands(".venv/bin/python train.py"))
def test_train_commands_compose(command, compose, own_data):
    words = shlex.split(command)[2:]
    overrides = [word for word in words if "=" in word]
    if "--help" in words:
        return
    choices = []
    for override in overrides:
        key, _, value = override.partition("=")
        sweep = "-m" in words or any(word.startswith("experiment=") for word in words)
        swept = sweep and "," in value
        values = value.split(",")[: 1 if key == "seed" else None]  # a seed is like another
        if swept and all(re.fullmatch(r"[\d.e+-]+", one) for one in values):
            values = list(dict.fromkeys([values[0], values[-1]]))  # so is a number between two
        choices.append([f"{key}={one}" for one in values] if swept else [override])
    experiment = next((one for one in overrides if one.startswith("experiment=")), None)
    if experiment:  # the first cell of its sweep; test_recipes composes all of them
        path = ROOT / "conf" / f"{experiment.replace('=', '/')}.yaml"
        swept = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
        given = {override.partition("=")[0] for override in overrides}
        choices += [
            [f"{key}={str(values).split(',')[0]}"]
            for key, values in swept.items()
            if key not in given
        ]
    for cell in itertools.product(*choices):
        assert compose(list(cell)).model.name


@pytest.mark.slow
def test_python_of_the_documents_runs(tmp_path, monkeypatch):
    """All blocks in order, on a model of RoBERTa's form."""
    from transformers import AutoModelForSequenceClassification as Classifier
    from transformers import RobertaConfig, RobertaForSequenceClassification

    settings = RobertaConfig(hidden_size=48, num_hidden_layers=2, intermediate_size=32)
    build = functools.partial(RobertaForSequenceClassification, settings)
    monkeypatch.setattr(Classifier, "from_pretrained", lambda name, num_labels: build())
    row = {"input_ids": torch.tensor([0, 7, 2]), "labels": torch.tensor(1)}
    names = {"rows": 8 * [row], "batches": [{"input_ids": row["input_ids"][None]}]}
    names |= {"base_model": build(), "fresh_base_model": build()}
    monkeypatch.chdir(tmp_path)
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/library.md")]
    blocks = [block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.S)]
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert len(names["coefficients"]) == 4 and len(names["head"]) == 4
    assert type(names["merged"]) is RobertaForSequenceClassification


def test_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_there_are_train_commands():
    assert len(commands(".venv/bin/python train.py")) >= 10


@pytest.mark.parametrize("command", commands(".venv/bin/python -m experiments.export"))
def test_export_commands_are_understood(command, capsys, monkeypatch):
    from experiments.commands import export

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # uploads are refused
    assert export.main(shlex.split(command)[3:]) == 1  # there is no such run
    assert "not a finished run" in capsys.readouterr().err


def test_there_are_export_commands():
    assert commands(".venv/bin/python -m experiments.export")


@pytest.mark.parametrize("command", commands(".venv/bin/torchrun") + commands("sbatch"))
def test_torchrun_commands_compose(command, compose):
    words = shlex.split(command)
    if "--wrap" in words:
        words = shlex.split(words[words.index("--wrap") + 1])
    start = words.index("train.py")
    launched = [word for word in words[:start] if word.startswith("--")]
    assert launched and any(word.endswith("torchrun") for word in words[:start])
    assert compose(words[start + 1 :]).mode.trains


@pytest.mark.parametrize("command", commands(".venv/bin/python -m experiments.hub"))
def test_prefetch_commands_are_understood(command):
    from experiments.config import overrides

    register()
    word, *rest = shlex.split(command)[3:]
    assert word == "prefetch" and (rest[0] == "--check" or overrides.find_problems(rest) == [])


@pytest.mark.parametrize("command", commands(".venv/bin/python -m experiments.search"))
def test_search_commands_are_understood(command, monkeypatch):
    from experiments.search import __main__ as search

    cells = []
    monkeypatch.setattr(search, "_search_cell", lambda *given: cells.append(given) or [])
    search.main(shlex.split(command)[3:])
    assert all(len(axes) and number >= 10 for _, _, axes, number, _ in cells) and cells


def test_there_are_commands_for_a_cluster():
    for start in (
        ".venv/bin/torchrun",
        "sbatch",
        *(f".venv/bin/python -m experiments.{c}" for c in ("hub", "search")),
    ):
        assert commands(start)


@pytest.mark.parametrize("command", commands("make "))
def test_make_targets_exist(command):
    target = command.split()[1]
    lines = re.findall(r"^(?:RUNS := (.*)|([\w -]+):.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert target in " ".join(map(" ".join, lines)).split()


@pytest.mark.parametrize("command", commands(".venv/bin/python -m experiments.report"))
def test_report_names_exist(command):
    words = shlex.split(command)[3:]
    if words[:1] in (["run"], ["status"], ["wandb"]):
        chosen = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
        assert set(chosen) <= set(sweep.list_experiments())
    else:
        assert set(words) <= {*registry.names(), "all"}


@pytest.mark.parametrize("command", commands(".venv/bin/python -m experiments.results"))
def test_commands_on_records_exist(command):
    with pytest.raises(SystemExit, match="0"):
        of_results.main([shlex.split(command)[3], "--help"])


JUDGE = commands(".venv/bin/python -m experiments.judge") + [
    line.split("#")[0].strip()
    for line in arguments.EXAMPLES.replace("\\\n", " ").splitlines()
    if line.startswith("  python -m experiments.judge")
]


@pytest.mark.parametrize("command", JUDGE)
def test_judge_commands_are_understood(command, tmp_path, monkeypatch):
    """By the whole check of arguments, with the folders that the documents speak of."""
    words = shlex.split(command)[3:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "some-key")
    monkeypatch.setenv("MY_KEY", "some-key")
    for run in {"outputs/run", *(word for word in words if word == "RUN" or "seed=" in word)}:
        (tmp_path / run / "generations").mkdir(parents=True)
        (tmp_path / run / "generations" / "mt_bench.jsonl").touch()
    (tmp_path / "DATA").mkdir()
    (tmp_path / "DATA" / "judge_prompts.jsonl").touch()
    assert arguments.parse_arguments(words).runs


def test_there_are_judge_commands():
    assert len(JUDGE) >= 9


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        if not link.startswith("http"):
            assert ((ROOT / name).parent / link).exists(), link


def test_no_machine_paths_in_documents():
    for name in DOCUMENTS:
        assert not re.search(r"(^|[\s`(])/(home|work|root|tmp|Users)/", (ROOT / name).read_text())
