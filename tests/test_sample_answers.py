"""Figures 8 and 9: stored answers to the paper's questions."""

import json

import pytest
from records import scored

from experiments.report.__main__ import main
from experiments.report.comparison import reference, run_index
from experiments.report.pages import registry, sample_answers
from experiments.report.render import text
from experiments.results.identity import to_plain

FACTS = reference.load("figure9")


@pytest.fixture(scope="module")
def plain(compose):
    """Function: model and method -> plain configuration."""
    return lambda model, method: to_plain(
        compose([f"model={model}", "task=alpaca", f"method={method}"])
    )


def answered(root, config, answer, question=29, seed=0):
    place = scored(root, config, seed, 0.5)
    (place / "generations").mkdir()
    line = {
        "question_id": question,
        "asked": ["Describe your daily life on Mars."],
        "choices": [{"index": 0, "turns": [answer]}],
    }
    (place / "generations/vicuna.jsonl").write_text(json.dumps(line) + "\n")
    return place


def test_both_answers_side_by_side(tmp_path, plain):
    answered(tmp_path, plain("llama2_7b", "lora"), "It is cold.")
    place = answered(tmp_path, plain("llama2_7b", "fourierft"), "It is red.\n\nAnd far.")
    answered(tmp_path, plain("llama2_7b", "fourierft"), "Second seed.", seed=1)
    judged = place / "judgements/vicuna"
    judged.mkdir(parents=True)
    (judged / "gpt-4.json").write_text(
        json.dumps({"judge": {"asked": "gpt-4"}, "scores": {"average": 7.5}})
    )
    index = run_index.collect(tmp_path)
    found = sample_answers.read_answers(FACTS, index)
    assert [one.text for one in found] == ["It is red.\n\nAnd far.", "It is cold."]
    page = text.markdown(registry.build("figure9", index))
    assert "2 of the paper's 2 models have answered." in page and "7.50 by gpt-4" in page
    assert "Describe your daily life on Mars." in page and "Second seed" not in page
    assert "make table4" not in page.partition("## Notes")[0]
    assert "0 of the paper" in text.markdown(registry.build("figure8", index)), "another question"


def test_other_models_stand_apart_and_nothing_becomes_markup(tmp_path, plain, capsys):
    answered(tmp_path, plain("stories260k", "fourierft"), "<script>alert(1)</script> once")
    to = tmp_path / "report"
    assert main(["figure9", "--outputs", str(tmp_path), "--to", str(to)]) == 0
    page = (to / "figure9.html").read_text()
    assert "2 models have answered; answers of other models: 1." in page
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "make table4 QUESTIONS=FOLDER" in page


def test_a_damaged_line_costs_a_line_in_the_report(tmp_path, plain):
    place = answered(tmp_path, plain("llama2_7b", "lora"), "It is cold.")
    with (place / "generations/vicuna.jsonl").open("a") as file:
        file.write("{half\n")
    index = run_index.collect(tmp_path)
    assert len(sample_answers.read_answers(FACTS, index)) == 1
    assert [one.kind for one in index.excluded] == ["damaged"]
