"""Contests: equally many trials, the rate chosen on rows that are not scored."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from experiments.config.compose import register
from experiments.contest import __main__ as command
from experiments.contest import plan, results, schedule, scores
from experiments.errors import ConfigError
from experiments.report.comparison.paired import Sample
from experiments.results.record import Record

TOY = {
    "title": "The toy",
    "set": ["model=mlp", "task=toy", "train.epochs=2", "train.eval_every=2"],
    "seeds": [0, 1, 2],
    "reference": "LoRA",
    "contestants": {
        "FourierFT": {"set": ["method=fourierft"], "rates": [3e-3, 1e-2, 3e-2]},
        "LoRA": {"set": ["method=lora"], "rates": [3e-3, 1e-2, 3e-2]},
    },
}


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**TOY, **changes}))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def schema():
    register()


def trial(rate: float, halves: tuple[float, float], metric: str = "accuracy", seed: int = 0):
    record = Record(
        run={},
        config={},
        parameters={"adapter": 1},
        metrics={"primary": {"name": metric, "split": "validation"}, "last": {"step": 1}},
        time={},
        memory={},
        environment={},
    )
    return scores.Trial(rate=rate, seed=seed, record=record, run_dir=Path("x"), halves=halves)


def play(contest, score):
    """Hold a contest whose scores are given; return the order of its trials."""
    done, order = {}, []
    while (planned := schedule.find_next(contest, done)) is not None:
        key = (planned.contestant.name, planned.rate, planned.seed)
        done[key] = trial(planned.rate, score(*key), seed=planned.seed)
        order.append(key)
    return order, done


@pytest.mark.parametrize("name", plan.list_contests())
def test_every_contest_composes(name):
    command._check(plan.load_contest(name), [])


def test_a_contest_like_another_has_its_settings_and_chooses_among_them(write, tmp_path):
    write()
    path = tmp_path / "other.yaml"
    other = {"like": "own.yaml", "title": "Other", "contestants": ["LoRA"]}
    path.write_text(yaml.safe_dump(other))
    contest = plan.load_contest(str(path))
    assert (contest.name, contest.title, contest.seeds) == ("other", "Other", TOY["seeds"])
    (one,) = contest.contestants
    assert (one.name, one.overrides) == ("LoRA", ["method=lora"])
    path.write_text(yaml.safe_dump(other | {"contestants": ["LoRA", "full"]}))
    with pytest.raises(ConfigError, match=r"no contestant full \(allowed: FourierFT, LoRA\)"):
        plan.load_contest(str(path))
    path.write_text(yaml.safe_dump(other | {"contestants": "LoRA"}))
    with pytest.raises(ConfigError, match="needs a dict"):
        plan.load_contest(str(path))
    for like, said in (
        ("other.yaml", "like itself"),
        (3, "like=3: needs a contest"),
        ("own.yaml", "like='own.yaml': needs a contest"),
    ):
        write(contestants=[])
        path.write_text(yaml.safe_dump({"like": like}))
        with pytest.raises(ConfigError, match=said):
            plan.load_contest(str(path))
    path.write_text(yaml.safe_dump({"like": "nothing"}))
    with pytest.raises(ConfigError, match="contest nothing: unknown"):
        plan.load_contest(str(path))


def test_grids_come_first_then_the_chosen_rates_with_more_seeds(write):
    contest = plan.load_contest(write())
    order, _ = play(contest, lambda name, rate, seed: (-abs(rate - 1e-2),) * 2)
    grid = [(name, rate, 0) for name in ("FourierFT", "LoRA") for rate in (3e-3, 1e-2, 3e-2)]
    chosen = [(name, 1e-2, seed) for seed in (1, 2) for name in ("FourierFT", "LoRA")]
    assert order == grid + chosen


def test_a_grid_grows_while_the_best_rate_lies_at_its_edge(write):
    contest = plan.load_contest(write(seeds=[0]))
    order, done = play(contest, lambda name, rate, seed: (-abs(math.log(rate / 0.1)),) * 2)
    rates = [rate for name, rate, _ in order if name == "LoRA"]
    assert rates == [3e-3, 1e-2, 3e-2, 0.09, 0.27]
    assert not schedule.is_at_edge(contest, contest.contestants[0], done)
    _, done = play(contest, lambda name, rate, seed: (rate, rate))  # there is no end to it
    assert len(done) == 2 * (3 + schedule.WIDER)
    assert schedule.is_at_edge(contest, contest.contestants[0], done)
    assert {rate for _, rate, _ in done} <= set(
        schedule.list_possible_rates(contest.contestants[0])
    )


def test_each_half_chooses_and_a_diverged_trial_is_never_chosen():
    trials = [trial(1.0, (0.9, 0.1)), trial(2.0, (0.1, 0.9)), trial(3.0, (math.nan, math.nan))]
    assert [scores.choose(trials, half).rate for half in (0, 1)] == [1.0, 2.0]
    losses = [trial(one.rate, one.halves, "cross_entropy") for one in trials]
    assert [scores.choose(losses, half).rate for half in (0, 1)] == [2.0, 1.0]


def test_a_contestant_that_fails_keeps_what_it_has_finished(write, tmp_path, monkeypatch):
    """It trains no more in this call, but its finished grid stands in the table."""
    contest = plan.load_contest(write(seeds=[0, 1]))

    def run(contest, planned, given):
        if (planned.contestant.name, planned.seed) == ("FourierFT", 1):
            raise RuntimeError("no memory")
        return trial(planned.rate, (0.5, 0.5), seed=planned.seed)

    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr(scores, "_resample", lambda one, half: (np.zeros(2), 5))
    failed = command.hold(contest, [f"output={tmp_path}"])
    assert len(failed) == 1 and "no memory" in failed[0]
    result = json.loads((tmp_path / ".contests" / "own.json").read_text())
    assert {one["name"]: [*one["seeds"]] for one in result["contestants"]} == {
        "FourierFT": ["0"], "LoRA": ["0", "1"]
    }  # fmt: skip


def test_a_seed_that_diverged_has_no_interval(write):
    values = {0: 0.5, 1: math.nan, 2: 0.7}
    samples = {"a": Sample(values=values), "b": Sample(values={0: 0.1, 1: 0.2, 2: 0.2})}
    [pair] = results._compare_pairs(plan.load_contest(write()), samples)
    assert pair["difference"]["interval"] is None


def render_one(losses, **entries):
    one = {"name": "LoRA", "parameters": 1, "trials": 3, "rates": [1.0], "edge": False}
    one |= {"score": 1.0, "seeds": {"0": 1.0}, "difference": None} | entries
    result = {"title": "", "metric": "accuracy", "lower_is_better": False, "reference": "LoRA"}
    trial = {"contestant": "LoRA", "rate": 1.0, "seed": 0, "first_seed": True, "halves": [1.0, 1.0]}
    lines = [
        {"contestant": "LoRA", "rate": rate, "seed": seed, "loss": loss}
        for (rate, seed), loss in losses.items()
    ]
    outside = {"losses": lines, "rows": 1, "text": "", "base": 1.0}
    result |= {"contestants": [one], "trials": [trial], "pairs": [], "outside": outside}
    return results.render(result)


def test_a_diverged_contestant_is_told(write):
    contest = plan.load_contest(write(seeds=[0]))
    _, done = play(contest, lambda name, rate, seed: (math.nan if name == "LoRA" else rate,) * 2)
    assert all(math.isnan(done["LoRA", rate, 0].halves[0]) for rate in (3e-3, 1e-2, 3e-2))
    diverged = {"score": None, "seeds": {"0": None}, "difference": {"value": None, "seeds": 1}}
    assert render_one({(1.0, 0): None}, **diverged).count("diverged") == 6


def test_losses_on_another_text_are_told_by_seed_and_by_rate():
    losses = {(1.0, 0): 2.0, (1.0, 1): 4.0, (3.0, 0): 7.0, (3.0, 2): 9.0}
    told = "| LoRA | 3.0000 | 2.0000, 4.0000 | 1: 2.0000; 3: 7.0000 |"
    assert told in render_one(losses)
    both = "| LoRA | 4.5000 | 4.5000 | 1: 2.0000; 3: 7.0000 |"
    assert both in render_one(losses, rates=[1.0, 3.0])
    assert "| LoRA | not measured |" in render_one({})


def test_losses_on_another_text_outlast_a_later_table(tmp_path):
    def list_trials(*names, **entries):
        return [{"contestant": name, "rate": 1.0, "seed": 0} | entries for name in names]

    losses = list_trials("LoRA", "full", loss=2.0)
    gone = {"contestant": "LoRA", "rate": 3.0, "seed": 0, "loss": 4.0}
    earlier = {"outside": {"base": 1.0, "losses": [*losses, gone]}}
    (tmp_path / "own.json").write_text(json.dumps(earlier))
    later = {"trials": list_trials("LoRA")}  # --only LoRA
    results.keep_outside(later, tmp_path / "own")
    assert later["outside"] == {"base": 1.0, "losses": losses}
    again = list_trials("LoRA", loss=3.0)
    later["outside"] = {"base": 1.0, "losses": again}  # --only LoRA --outside
    results.keep_outside(later, tmp_path / "own")
    assert later["outside"]["losses"] == [*again, losses[1]]
    results.keep_outside({"trials": []}, tmp_path / "none")


def test_settings_are_compared_with_each_other_not_only_with_the_reference(write):
    names = ("LoRA", "FourierFT", "full")
    samples = {
        name: Sample(values={0: place, 1: 4 * place, 2: place}, rows={}, count=5, name=name)
        for place, name in enumerate(names)
    }
    samples["BitFit"] = Sample(values={0: 9.0}, rows={}, count=5, name="BitFit")
    pair, *others = results._compare_pairs(plan.load_contest(write()), samples)
    assert {(one["setting"], one["less"]) for one in others} == {
        ("FourierFT", "BitFit"),
        ("full", "BitFit"),
    }
    assert all(one["difference"]["interval"] is None for one in others)
    assert (pair["setting"], pair["less"]) == ("FourierFT", "full")
    assert pair["difference"]["value"] == -2.0 and pair["difference"]["seeds"] == 3


def test_the_scored_rows_are_not_those_that_chose(monkeypatch):
    first, second = trial(1.0, (0.9, 0.2)), trial(2.0, (0.3, 0.8))
    monkeypatch.setattr(scores, "_resample", lambda one, half: (np.array([one.halves[half]]), 5))
    sample = scores.combine([{0: first}, {0: second}], "one")
    assert sample.values[0] == pytest.approx((0.2 + 0.3) / 2)  # not (0.9 + 0.8) / 2
    assert sample.rows[0] == pytest.approx((0.2 + 0.3) / 2) and sample.count == 10


def test_wrong_contests_are_refused_with_all_that_is_wrong(write):
    wrong = {
        "LoRA": {"set": ["train.learning_rate=1"], "rates": [1, 2]},
        "full": {"set": "method=full", "rates": [1, 2, 3]},
        "full, all": {"set": [], "rates": [1, 2, 3]},
    }
    given = {"contestants": wrong, "reference": "BitFit", "seeds": [], "more": 1, "set": ["seed=3"]}
    with pytest.raises(ConfigError) as error:
        plan.load_contest(write(**given))
    told = (
        "more: unknown",
        "seeds=[]",
        "at least three",
        "the rates say",
        "BitFit",
        "needs a list",
        "full, all: a comma",
    )
    for word in (*told, "seed=3: the seeds say"):
        assert word in str(error.value), word
    with pytest.raises(ConfigError, match="train.learning_rate=1: the rates say"):
        command.hold(plan.load_contest(write()), ["train.learning_rate=1"])
    with pytest.raises(SystemExit, match="--seeds 0: allowed 1 to 3"):
        command.main([write(), "--seeds", "0"])
    with pytest.raises(ConfigError, match="smollm2_e2e"):
        plan.load_contest("nothing")
    with pytest.raises(ConfigError, match="allowed: FourierFT, LoRA"):
        plan.load_contest(write()).select(["full"])
    bleu = ["model=smollm2_135m", "task=e2e"]
    with pytest.raises(ConfigError, match=r"task.metrics=\['bleu', .*allowed: accuracy, "):
        command.hold(plan.load_contest(write(set=bleu)), [])
    with pytest.raises(ConfigError, match=r"FourierFT: .*\n.*LoRA: "):
        command.hold(plan.load_contest(write(set=["model=mlp", "task=nothing"])), [])


def test_a_contest_goes_on_where_it_was_and_tells_what_it_measured(write, tmp_path, capsys):
    given = [f"output={tmp_path / 'out'}", "model.width=16"]
    contest = plan.load_contest(write(seeds=[0, 1]))
    command.hold(replace(contest, seeds=[0]), given)
    first = capsys.readouterr().out
    assert command.hold(contest, given) == []
    told = capsys.readouterr().out
    assert "=0.01 seed=0" in first and " seed=0" not in told and " seed=1" in told
    result = json.loads((tmp_path / "out" / ".contests" / "own,width=16.json").read_text())
    assert results.render(result) in told
    assert {one["name"] for one in result["contestants"]} == {"FourierFT", "LoRA"}
    for one in result["contestants"]:
        assert set(one["seeds"]) == {"0", "1"}
        assert one["trials"] == sum(
            line["contestant"] == one["name"] and line["first_seed"] for line in result["trials"]
        )
    difference = result["contestants"][0]["difference"]
    assert difference["seeds"] == 2 and result["contestants"][1]["difference"] is None
