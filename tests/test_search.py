"""Searches: one study per cell, exactly the asked number of finished trials, whatever happens."""

import itertools
import json
import random
import sqlite3
import subprocess
import sysconfig
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from processes import Started

from experiments.config.changes import find_plain
from experiments.config.compose import register
from experiments.errors import ConfigError, RecordError, UserError
from experiments.search import __main__ as command
from experiments.search import space
from experiments.search.study import DATABASE, Study

AXES = ["train.learning_rate=tag(log, interval(1e-4, 1))", "method.alpha=interval(1, 100)"]
TOY = ["task=toy", "train.epochs=10", "train.eval_every=10", "method=fourierft"]


def value_of(overrides: list[str]) -> float:
    return sum(float(word.partition("=")[2]) for word in overrides)


def trials_of(study: Study) -> list[tuple]:
    return [
        (trial["number"], trial["state"], trial["value"], tuple(trial["params"].values()))
        for trial in study.listing()
    ]


def pursue(folder: Path, number: int, **options) -> Study:
    """What the command does with a study, a sum in the place of a run."""
    study = Study(folder, space.parse_axes(AXES), lower=False, seed=0, **options)
    while study.finished < number:
        proposal = study.propose()
        study.finish(proposal.number, value_of(proposal.overrides), "somewhere")
    return study


def test_spaces_are_read_as_hydra_writes_them():
    found = space.parse_axes(
        [*AXES, "method.n=int(interval(10, 20))", "method.basis=choice(dct,random)"]
    )
    assert [axis.example for axis in found] == [
        "train.learning_rate=0.0001",
        "method.alpha=1.0",
        "method.n=10",
        "method.basis=dct",
    ]
    assert [axis.log for axis in found] == [True, False, False, False]
    assert isinstance(found[2].high, int) and found[3].choices == ("dct", "random")


def test_every_space_with_a_name_can_be_searched(capsys):
    for name in space.list_spaces():
        overrides, trials = space.load_space(name)
        assert space.parse_axes(overrides) and trials >= 1
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "figure4" in capsys.readouterr().out and "figure4" in space.list_spaces()
    with pytest.raises(ConfigError, match=r"search=fig: unknown \(allowed: figure4"):
        command.search(["task=toy", "search=fig"], 1, 0)


def test_what_a_search_must_not_choose_is_refused_all_at_once():
    wrong = ["task=cola,rte", "method=choice(lora,full)", "seed=1,2", "train.epochs=3"]
    wrong += ["method.alpha=interval(5,5)", "train.epsilon=tag(log, interval(0, 1))"]
    with pytest.raises(ConfigError) as caught:
        space.parse_axes(wrong)
    assert len(caught.value.problems) == 6
    for words in ("no search chooses task", "no search chooses method", "seed", "not a range"):
        assert words in str(caught.value)


@pytest.mark.slow
def test_a_search_that_goes_on_is_the_one_that_was_not_interrupted(tmp_path):
    """Beyond the first ten trials, where the estimator looks at what was found."""
    whole = pursue(tmp_path / "whole", 13)
    for number in (1, 4, 11, 13):
        parts = pursue(tmp_path / "parts", number)
    assert trials_of(parts) == trials_of(whole)
    assert len({params for *_, params in trials_of(whole)}) == 13
    other = Study(tmp_path / "other", space.parse_axes(AXES), lower=False, seed=1)
    assert other.propose().overrides != [
        f"{a}={b}" for a, b in whole.listing()[0]["params"].items()
    ]


class Killed(BaseException):
    pass


def mortal(patch: pytest.MonkeyPatch, left: list[int]) -> None:
    """A database that is so many transactions from its end."""
    from sqlalchemy.orm import Session

    def commit(self, _commit=Session.commit):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        _commit(self)

    patch.setattr(Session, "commit", commit)


@pytest.mark.slow
def test_a_kill_at_any_write_costs_and_doubles_nothing(tmp_path, monkeypatch):
    """The storage dies at its first, second, third … transaction; the next start goes on."""
    wanted = trials_of(pursue(tmp_path / "whole", 2))
    for deadline in itertools.count(1):
        left = [deadline]
        with monkeypatch.context() as patch:
            mortal(patch, left)
            try:
                pursue(tmp_path / str(deadline), 2)
            except Killed:
                pass
        assert trials_of(pursue(tmp_path / str(deadline), 2)) == wanted
        if left[0] > 0:
            break
    assert deadline > 20


def test_failed_and_diverged_trials_are_kept_and_replaced(tmp_path):
    study = Study(tmp_path, space.parse_axes(AXES), lower=True, seed=0)
    study.fail(study.propose().number, "ValueError: no", None)
    study.finish(study.propose().number, None, "diverged")
    study.finish(study.propose().number, 0.5, "run")
    assert study.finished == 2 and study.best()["value"] == 0.5
    kept = json.loads((tmp_path / "trials.json").read_text())
    assert [trial["state"] for trial in kept] == ["fail", "complete", "complete"]
    assert [trial["value"] for trial in kept] == [None, None, 0.5]
    assert kept[0]["error"] == "ValueError: no" and kept[2]["run"] == "run"


def test_another_space_seed_or_direction_is_refused(tmp_path):
    pursue(tmp_path, 1)
    for axes, lower, seed in ((AXES[:1], False, 0), (AXES, False, 1), (AXES, True, 0)):
        with pytest.raises(ConfigError, match="another search lies there"):
            Study(tmp_path, space.parse_axes(axes), lower=lower, seed=seed)


OLD = Path(__file__).parent / "study_of_optuna_2.sql"
"""Dump of a study that Optuna 2.10 kept: two finished trials, one failed, one begun."""


def old_study(folder: Path) -> str:
    """Restores OLD in a folder; returns how Optuna names it."""
    folder.mkdir()
    with sqlite3.connect(folder / DATABASE) as database:
        database.executescript(OLD.read_text())
    database.close()
    return f"sqlite:///{quote(str(folder / DATABASE))}"


def test_a_study_of_optuna_2_goes_on_after_the_command_that_is_named(tmp_path):
    folder = tmp_path / "50% é?"
    url = old_study(folder)
    before = (folder / DATABASE).read_bytes()
    with pytest.raises(RecordError, match="set up by optuna 2.10.1") as caught:
        pursue(folder, 5)
    assert f"`$ optuna storage upgrade --storage {url}`" in str(caught.value)
    assert (folder / DATABASE).read_bytes() == before
    optuna = Path(sysconfig.get_path("scripts")) / "optuna"
    subprocess.run([optuna, "storage", "upgrade", "--storage", url], check=True, timeout=300)
    trials = trials_of(pursue(folder, 5))
    assert [state for _, state, *_ in trials] == ["complete", "complete", "fail", *["complete"] * 3]
    assert [value for *_, value, _ in trials][:3] == [3.0, None, None]
    assert trials[3][3] == (0.04107279722341081, 98.61775782155121)  # begun by Optuna 2.10


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "50% é", "a@b:c&d=e"])
def test_a_study_lies_in_its_folder_whatever_that_is_called(name, tmp_path):
    pursue(tmp_path / name, 1)
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [DATABASE, "trials.json"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_study_that_cannot_be_read_is_refused_and_left_alone(tmp_path):
    (tmp_path / DATABASE).write_text("no database " * 100)
    with pytest.raises(RecordError, match="study.sqlite: cannot be read .*move the folder away"):
        pursue(tmp_path, 1)
    (tmp_path / DATABASE).unlink()
    (tmp_path / "trials.json").write_text("[]")
    with pytest.raises(RecordError, match="trials.json: its study.sqlite is missing"):
        pursue(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["trials.json"]


@pytest.fixture
def runs(monkeypatch):
    """Function that stands for a run, called with its configuration; the runs so far."""
    done = []

    def run(config):
        from types import SimpleNamespace

        done.append(config)
        name = config.task.metrics[0]
        return SimpleNamespace(metrics={"primary": {"name": name, "value": config.method.alpha}})

    monkeypatch.setattr("experiments.run.main.run", run)
    return done


@pytest.mark.parametrize("task", ["cola", "qnli"])
def test_figure_4_searches_all_that_the_methods_recipes_set_apart(task):
    """Adapter's rate, head's rate and alpha, between bounds that hold the recipes of both."""
    register()
    axes = {axis.key: axis for axis in space.parse_axes(space.load_space("figure4")[0])}
    for method in ("fourierft", "lora"):
        _, recipe = find_plain("model=roberta_base", f"task={task}", f"method={method}")
        rate = recipe["train.learning_rate"]
        used = recipe | {"train.head_learning_rate": recipe["train.head_learning_rate"] or rate}
        assert all(axis.low <= used[key] <= axis.high for key, axis in axes.items())
    assert set(axes) == {"train.learning_rate", "train.head_learning_rate", "method.alpha"}


@pytest.mark.slow
def test_every_cell_has_a_study_of_its_own_with_the_same_space(runs, tmp_path):
    given = ["task=toy", "method=fourierft,lora", f"output={tmp_path}", "search=figure4"]
    assert command.search(given, 1, 0) == []
    places = sorted(path.parent for path in tmp_path.rglob(DATABASE))
    assert [place.relative_to(tmp_path / ".searches/mlp/toy").as_posix() for place in places] == [
        "fourierft/seed=0",
        "lora/seed=0",
    ]
    tried = [json.loads((place / "trials.json").read_text())[0]["params"] for place in places]
    assert tried[0] == tried[1] and len(tried[0]) == 3
    heads = [run.train.head_learning_rate for run in runs]
    assert heads == [one["train.head_learning_rate"] for one in tried], "no head keeps a recipe's"
    assert [run.method.name for run in runs] == ["fourierft", "lora"]
    assert [run.method.alpha for run in runs] == [one["method.alpha"] for one in tried]
    assert [run.train.learning_rate for run in runs] == [
        one["train.learning_rate"] for one in tried
    ]
    command.search(given, 1, 0)
    assert len(runs) == 2


@pytest.mark.slow
def test_a_cell_is_given_up_after_three_failures_and_the_others_go_on(
    runs, tmp_path, monkeypatch, capsys
):
    def run(config):
        runs.append(config)
        raise UserError("out of memory")

    monkeypatch.setattr("experiments.run.main.run", run)
    given = ["task=toy", "seed=0,1", f"output={tmp_path}", *AXES]
    with pytest.raises(SystemExit) as caught:
        command.main([*given, "--trials", "5"])
    assert "seed=0: 0 of 5 trials; the last 3 failed" in str(caught.value.code) and len(runs) == 6
    assert "seed=1: 0 of 5 trials" in str(caught.value.code)


def test_a_study_that_is_at_work_is_passed_over(runs, tmp_path, capsys):
    from experiments.results import lock

    given = ["task=toy", "method=fourierft", f"output={tmp_path}", *AXES]
    place = tmp_path / ".searches/mlp/toy/fourierft/seed=0"
    place.mkdir(parents=True)
    with lock.acquire_lock(place):
        assert command.search(given, 1, 0) == [] and not runs
    assert "passed over" in capsys.readouterr().out


def test_a_search_does_not_go_on_with_other_data(runs, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation"):
        (data / f"{split}.parquet").write_text("rows")
    given = ["model=minilm", "task=sst2", "method=fourierft", f"task.path={data}"]
    given += [f"output={tmp_path}/runs", *AXES]
    assert command.search(given, 1, 0) == [] == command.search(given, 1, 0) and len(runs) == 1
    (data / "train.parquet").write_text("other rows")
    (problem,) = command.search(given, 2, 0)
    assert "its trials began with other inputs" in problem and "train data: " in problem
    assert len(runs) == 1


def test_bad_requests_are_refused(tmp_path):
    output = f"output={tmp_path}"
    for given, words in (
        ([*TOY, *AXES, output], "trials=None"),
        (["task=toy", output], "nothing to search"),
        (["task=toy", "method.alhpa=interval(1,2)", output], "alhpa"),
        (["model=mlp", "task=cola", *AXES, output], "invalid cells"),
    ):
        with pytest.raises(ConfigError, match=words):
            command.search(given, None if "trials" in words else 1, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kill_nine_at_random_moments_leaves_the_undisturbed_search(tmp_path):
    """Real runs; each kill falls somewhere into a trial."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = [*TOY, *AXES]
    assert command.search([*given, f"output={whole}"], 5, 0) == []
    words = ["experiments.search", *given, f"output={killed}", "--trials", "5"]
    draw = random.Random(0)
    for number in (1, 2, 4):
        process = Started(*words)
        deadline = time.monotonic() + 300
        while len(_trials(killed)) < number:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1.5))
        process.kill()
        process.wait()
    assert Started(*words).wait(timeout=300) == 0
    one, two = _trials(whole), _trials(killed)
    for trial in one + two:
        record = json.loads((Path(trial["run"]) / "metrics.json").read_text())
        assert record["metrics"]["primary"]["value"] == trial["value"]
        trial["run"] = trial["run"].replace(str(whole), "").replace(str(killed), "")
    assert one == two and len(one) == 5
    assert len(list(killed.rglob("metrics.json"))) == 5


def _trials(output: Path) -> list[dict]:
    found = list(output.rglob("trials.json"))
    return json.loads(found[0].read_text()) if found else []


def test_overrides_may_stand_on_both_sides_of_the_options(monkeypatch):
    asked = []
    monkeypatch.setattr(command, "search", lambda *given: asked.append(given) or [])
    command.main(["search=figure4", "--trials", "5", "output=x", "--seed", "3", "task=toy"])
    assert asked == [(["search=figure4", "output=x", "task=toy"], 5, 3)]
