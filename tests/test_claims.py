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


def test_figure5_of_other_models_tasks_and_sizes(tmp_path, compose):
    """What the paper has not is shown at the sizes that were run, and apart for other rows."""
    for task in ("rte", "sst2"):
        choice = ["model=minilm", f"task={task}", "method=fourierft", "method.n=1000"]
        plain = results.plain(compose(choice))
        cases = [(None, 100, 0.6), (0, 100, 0.61), (500, 100, 0.62), (7, 50, 0.5), (9, None, 0.4)]
        for center, rows, value in cases:
            changes = {"method.frequency_bias.center": center, "task.train_rows": rows}
            place = tmp_path / f"{task}/{center}/{rows}/seed=0"
            scored(tmp_path, plain, 0, value, changes=changes, place=place)
    page = pages.build("figure5", evidence.collect(tmp_path))
    panels = {"RTE, minilm, 100 rows", "sst2, minilm, 100 rows"}
    assert {row["panel"] for row in page.rows} - {"RTE", "MRPC", "STS-B", "CoLA"} == panels
    for panel in panels:
        shown = [row for row in page.rows if row["panel"] == panel]
        assert [(row["size"], row["x"], row["ours_best"]) for row in shown] == [
            (0, 0, 61.0), (500, 500, 62.0), (None, None, 60.0)
        ]  # fmt: skip
        assert all("minilm" in row["obstacles"] and "=100" in row["obstacles"] for row in shown)
    assert page.verdicts == {"not run": 2}
    [figure] = [picture.draw() for picture in page.pictures]
    assert sum(axes.get_visible() for axes in figure.axes) == 6


def test_figure4_of_another_width_is_drawn_at_its_own_numbers(tmp_path, compose):
    """minilm has six blocks of two matrices; the records say 24,000 numbers, 2,000 for each."""
    for method, sizes in {"fourierft": ("n", (50, 2000)), "lora": ("r", (1, 3))}.items():
        plain = results.plain(compose(["model=minilm", "task=sst2", f"method={method}"]))
        for size in sizes[1]:
            changes = {f"method.{sizes[0]}": size}
            if size == 50:
                changes["method.scaling"] = "plain"
            scored(tmp_path, plain, 0, 0.8, changes=changes, place=tmp_path / f"{method}{size}")
    norm = results.plain(compose(["model=minilm", "task=sst2", "method=fourierft"]))
    changes = {"method.n": 77, "method.scaling": "norm"}
    scored(tmp_path, norm, 0, 0.8, changes=changes, place=tmp_path / "norm")
    page = pages.build("figure4", evidence.collect(tmp_path))
    shown = [row for row in page.rows if row["panel"] == "SST-2, minilm"]
    assert [(row["series"], row["size"], row["x"]) for row in shown] == [
        ("fourierft", 50, 2000), ("fourierft", 2000, 2000), ("lora", 1, 2000), ("lora", 3, 2000)
    ]  # fmt: skip


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


@pytest.mark.parametrize("name", ["figure1", "figure4", "figure5"])
@pytest.mark.parametrize(
    "broken",
    [
        {"best": None},
        {"primary": None},
        {"primary": {"name": None}, "best": None, "last": None, "heldout": None},
        {"best": {"value": 0.8, "interval": None}},
        {"best": {"value": 0.8, "interval": [0.7, "x"]}},
    ],
)
def test_records_without_scores_or_intervals_are_drawn(tmp_path, compose, name, broken):
    for model, task in (("roberta_base", "rte"), ("minilm", "rte"), ("minilm", "qnli")):
        plain = results.plain(compose([f"model={model}", f"task={task}", "method=fourierft"]))
        for n in (50, 100, 1000):
            place = tmp_path / model / task / f"{n}/seed=0"
            scored(tmp_path, plain, 0, 0.8, changes={"method.n": n}, place=place)
            path = place / "metrics.json"
            record = json.loads(path.read_text())
            record["metrics"] |= broken
            path.write_text(json.dumps(record))
    page = pages.build(name, evidence.collect(tmp_path))
    assert text.markdown(page)
    assert next(page.pictures).draw().axes


@pytest.mark.parametrize("name", ["figure1", "figure3", "figure4", "figure5", "figure6"])
def test_figures_without_runs_are_drawn(tmp_path, name):
    page = pages.build(name, evidence.collect(tmp_path))
    assert next(page.pictures).draw().axes
    assert name == "figure3" or set(page.verdicts) == {"not run"}
