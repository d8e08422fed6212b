"""What runs say about the claims of Figures 1, 4, 5 and 6."""

import json

import pytest
from records import scored

from experiments import results
from experiments.report import claims, evidence, pages, text

SIZES = {"p": {"a": [1, 2], "b": [3, 4]}}


@pytest.mark.parametrize(
    ("check", "ends", "panel", "expected"),
    [
        ("best_beats", {"of": "a", "than": "b"}, {"a": {1: 5, 2: 7}, "b": {3: 6, 4: 1}}, True),
        ("best_beats", {"of": "a", "than": "b"}, {"a": {1: 5, 2: 6}, "b": {3: 6, 4: 1}}, False),
        ("smallest_beats", {"of": "a", "than": "b"}, {"a": {1: 5, 2: 9}, "b": {3: 6, 4: 1}}, False),
        ("largest_level", {"of": "a", "than": "b"}, {"a": {1: 0, 2: 99}, "b": {3: 100}}, True),
        ("largest_level", {"of": "a", "than": "b"}, {"a": {1: 99, 2: 98}, "b": {3: 100}}, False),
        ("point_beats", {"of": ["a", 1], "than": ["b", 4]}, {"a": {1: 2}, "b": {4: 1}}, True),
        ("rises", {"of": "a"}, {"a": {2: 6, 1: 5}}, True),
        ("rises", {"of": "a"}, {"a": {2: 4, 1: 5}}, False),
        ("falls_somewhere", {"of": "a"}, {"a": {2: 4, 1: 5}}, True),
        ("beats_most", {"of": "a", "than": "b"}, {"a": {None: 5}, "b": {1: 4, 2: 4, 3: 6}}, True),
        ("beats_most", {"of": "a", "than": "b"}, {"a": {None: 5}, "b": {1: 4, 2: 6}}, False),
        ("some_beats", {"of": "b", "than": "a"}, {"a": {None: 5}, "b": {1: 4, 2: 6}}, True),
    ],
)
def test_checks(check, ends, panel, expected):
    assert claims.CHECKS[check](panel, **ends) is expected


def weigh(panels, obstacles=None, **claim):
    claim = {"check": "best_beats", "of": "a", "than": "b", "panels": ["p"]} | claim
    return claims.weigh(claim, panels, SIZES, obstacles or {})


def test_weighing():
    whole = {"p": {"a": {1: 5, 2: 7}, "b": {3: 6, 4: 1}}}
    assert weigh(whole).verdict.value == "reproduced"
    assert weigh({"p": {"a": {1: 5, 2: 5}, "b": {3: 6, 4: 1}}}).verdict.value == "not reproduced"
    told = weigh({"p": {"a": {1: 5}, "b": {3: 6, 4: 1}}})
    assert (told.verdict.value, told.reason) == ("not run", "1 points missing")
    told = weigh(whole, {"p": ["random weights"]})
    assert told.verdict.value == "not comparable" and "holds in 1 of 1" in told.reason


@pytest.fixture(scope="module")
def rte(compose):
    choice = ["model=roberta_base", "task=rte", "method=fourierft"]
    return results.plain(compose(choice))


def test_figure5_from_records(tmp_path, rte):
    """Two of five central frequencies beat no bias on RTE; other panels are missing."""
    scored(tmp_path, rte, 0, 0.79)
    for center, value in {0: 0.8, 100: 0.785, 200: 0.78, 350: 0.77, 480: 0.795}.items():
        changes = {"method.frequency_bias.center": float(center)}
        scored(tmp_path, rte, 0, value, changes=changes, place=tmp_path / f"{center}/seed=0")
    page = pages.build("figure5", evidence.collect(tmp_path))
    shown = text.markdown(page)
    assert "holds in 1 of 1 panels, 18 points missing" in shown
    assert page.verdicts == {"not run": 2}
    assert sum(row["seeds"] for row in page.rows) == 6
    [figure] = [picture.draw() for picture in page.pictures]
    assert len(figure.axes) == 4


def test_figure5_of_another_model_is_drawn_beside(tmp_path, compose):
    choice = ["model=minilm", "task=rte", "method=fourierft", "method.n=1000"]
    minilm = results.plain(compose(choice))
    scored(tmp_path, minilm, 0, 0.6)
    page = pages.build("figure5", evidence.collect(tmp_path))
    assert {row["panel"] for row in page.rows} >= {"RTE", "RTE, minilm"}
    assert "another base model (minilm)" in text.markdown(page)
    assert len(next(page.pictures).draw().axes) >= 5


def test_figure6_from_histories(tmp_path, compose):
    for method, size, level in (("fourierft", "n=1536", 0.1), ("lora", "r=1", 0.0)):
        choice = ["model=roberta_base", "task=mrpc", f"method={method}", f"method.{size}"]
        place = scored(tmp_path, results.plain(compose(choice)), 0, 0.9)
        lines = [
            {"step": epoch, "epoch": epoch, "elapsed_s": 1, "validation/accuracy": 0.7 + level,
             "validation/f1": 0.8 - level, "train/loss": 0.5 - level}
            for epoch in (1, 2, 3)
        ]  # fmt: skip
        (place / "history.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    page = pages.build("figure6", evidence.collect(tmp_path))
    shown = text.markdown(page)
    assert page.verdicts == {"reproduced": 2, "not reproduced": 1}
    assert "in 0 of 3 epochs" in shown
    assert len(next(page.pictures).draw().axes) == 3


@pytest.mark.parametrize("name", ["figure1", "figure3", "figure4", "figure5", "figure6"])
def test_figures_without_runs_are_drawn(tmp_path, name):
    page = pages.build(name, evidence.collect(tmp_path))
    assert next(page.pictures).draw().axes
    assert name == "figure3" or set(page.verdicts) == {"not run"}
