"""Grades of a judge: which are shown, and why they are not compared with the paper's."""

import json

import pytest
from records import scored

from experiments.report.comparison import cells, reference, run_index
from experiments.results import fastchat
from experiments.results.identity import to_plain

GRADE = {
    "judge": {"asked": "gpt-4"},
    "scores": {"average": 5.2},
    "prompts": {"hash": fastchat.PROMPTS},
    "questions": {"hash": fastchat.QUESTIONS["mt_bench"], "unanswered": []},
    "failed": 0,
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"prompts": {"hash": "ff7d2165aa523d17"}}, "prompts other than FastChat's"),
        ({"prompts": None}, "prompts other than FastChat's"),
        ({"judge": {"asked": "other"}}, "judged by other"),
        ({"questions": {"hash": "0"}}, "questions or reference answers other"),
        ({"failed": 2}, "2 questions or judgements left out"),
    ],
)
def test_grades_compare_with_equal_judge_prompts_and_questions(tmp_path, compose, changed, reason):
    """Of several grades the one that compares best is shown."""
    config = to_plain(compose(["model=llama2_7b", "task=alpaca", "method=lora"]))
    place = scored(tmp_path, config, 0, None)
    folder = place / "judgements/mt_bench"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(GRADE | {"prompts": {}, "scores": {"average": 1}}))
    (folder / "gpt-4.json").write_text(json.dumps(GRADE | changed))
    if reason:
        (folder / "a.json").unlink()
    there = run_index.collect(tmp_path)
    table = cells.fill(reference.load("table4"), there)
    [cell] = [one for one in table if one.setting and one.column.key == "mt_bench"]
    assert cell.ours["last"].values == {0: 5.2}
    told = cell.judgements["last"].reason
    assert (reason in told) if reason else ("other" not in told and "judged" not in told)
