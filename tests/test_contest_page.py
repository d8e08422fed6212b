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


@pytest.mark.parametrize("result", FOUND, ids=lambda result: result["contest"])
def test_kept_trials_are_those_of_the_contest(result):
    contest = plan.load_contest(result["contest"])
    there = {one.name: one for one in contest.contestants}
    for one in result["contestants"]:
        assert one["overrides"] == there[one["name"]].overrides
    for trial in result["trials"]:
        assert trial["rate"] in schedule.list_possible_rates(there[trial["contestant"]])
        assert trial["seed"] in contest.seeds
