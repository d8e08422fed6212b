"""Grades of a judge: which are shown, and why they are not compared with the paper's."""

import json

import pytest
from records import scored

from experiments.report.comparison import cells, reference, run_index
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import registry
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


@pytest.mark.parametrize("changed", [{"judge": {"asked": "other"}}, {"prompts": {"hash": "ours"}}])
def test_figure1_compares_grades_of_one_judge_with_one_set_of_prompts(tmp_path, compose, changed):
    """FourierFT is ahead of LoRA only where a milder judge, or other prompts, graded it."""
    sizes = {"fourierft": ("n", (1000,)), "lora": ("r", (32, 64, 128))}
    for method, (key, values) in sizes.items():
        for size in values:
            choice = ["model=llama2_7b", "task=alpaca", f"method={method}", f"method.{key}={size}"]
            plain = to_plain(compose(choice))
            for seed in range(3):
                place = scored(tmp_path, plain, seed, None)
                folder = place / "judgements/mt_bench"
                folder.mkdir(parents=True)
                average = {"scores": {"average": 5.0 + 0.01 * seed}}
                if method == "fourierft":
                    average = changed | {"scores": {"average": 9.0}}
                (folder / "a.json").write_text(json.dumps(GRADE | average))
    page = registry.build("figure1", run_index.collect(tmp_path))
    points = [row for row in page.rows if row["seeds"] and row["panel"].startswith("MT-Bench")]
    assert [row["ours_last"] is None for row in points] == [True, False, False, False]
    assert "graded by another judge" in points[0]["obstacles"]
    assert page.verdicts == {Verdict.not_run: 3}
