"""docs/validation.md has the tables of docs/contests/, whose trials are those of the contests."""

import importlib.util
from pathlib import Path

import pytest

from experiments.contest import plan, schedule

ROOT = Path(__file__).resolve().parent.parent


def load_script():
    spec = importlib.util.spec_from_file_location("contests", ROOT / "docs" / "contests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FOUND = load_script().read_results()


def test_the_page_has_the_tables_of_the_files():
    script = load_script()
    page = script.PAGE.read_text(encoding="utf-8")
    assert FOUND and script.insert_tables(page, FOUND) == page, "python docs/contests.py"
    assert "contests.png" in page


def test_trials_that_diverged_stop_no_table():
    script = load_script()
    trials = [
        {
            "contestant": "FourierFT",
            "rate": rate,
            "first_seed": True,
            "halves": halves,
            "step": rate,
        }
        for rate, halves in ((0.01, [0.4, 0.6]), (0.1, [None, 0.1]), (1.0, [None, None]))
    ]
    difference = {"value": None, "seeds": 3, "interval": None}
    result = {
        "title": "The toy, here", "metric": "accuracy", "lower_is_better": False, "reference": "C",
        "contestants": [
            {"name": name, "seeds": {"0": None, "1": 0.5}} for name in ("FourierFT", "LoRA")
        ],
        "pairs": [{"setting": "LoRA", "less": "FourierFT", "difference": difference}],
        "trials": trials,
    }  # fmt: skip
    told = "| The toy | FourierFT | 1.0%: **0.5000**; 10.0%: diverged; 100.0%: diverged |"
    assert told in script.list_steps([result])
    told = script.compare([result], "FourierFT", "LoRA")
    assert told.endswith("| diverged | diverged | diverged |\n")


@pytest.mark.parametrize("result", FOUND, ids=lambda result: result["contest"])
def test_kept_trials_are_those_of_the_contest(result):
    contest = plan.load_contest(result["contest"])
    there = {one.name: one for one in contest.contestants}
    for one in result["contestants"]:
        assert one["overrides"] == there[one["name"]].overrides
    for trial in result["trials"]:
        assert trial["rate"] in schedule.list_possible_rates(there[trial["contestant"]])
        assert trial["seed"] in contest.seeds
