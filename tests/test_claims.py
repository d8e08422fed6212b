"""What runs say about the claims of Figures 1, 4, 5 and 6."""

import json
from dataclasses import replace

import numpy as np
import pytest
from records import scored

from experiments.metrics.selection import Evaluation
from experiments.report.comparison import claims, figure_claims, paired, run_index
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.paired import Sample
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import registry
from experiments.report.render import text
from experiments.results import predictions
from experiments.results.identity import to_plain

NOISE = {0: -0.1, 1: 0.0, 2: 0.1}


def sample(mean, noise=NOISE):
    scale = 1 + 0.1 * (mean % 7)  # equal differences would say nothing about their error
    return Sample(values={seed: mean + scale * one for seed, one in noise.items()})


@pytest.mark.parametrize(
    ("check", "ends", "panel", "expected"),
    [
        ("best_beats", {"of": "a", "than": "b"}, {"a": {1: 5, 2: 7}, "b": {3: 6, 4: 1}}, True),
        ("best_beats", {"of": "a", "than": "b"}, {"a": {1: 5, 2: 6}, "b": {3: 6, 4: 1}}, False),
        ("smallest_beats", {"of": "a", "than": "b"}, {"a": {1: 5, 2: 9}, "b": {3: 6, 4: 1}}, False),
        ("largest_level", {"of": "a", "than": "b"}, {"a": {1: 0, 2: 99.1}, "b": {3: 100}}, True),
        ("largest_level", {"of": "a", "than": "b"}, {"a": {1: 99, 2: 98}, "b": {3: 100}}, False),
        ("point_beats", {"of": ["a", 1], "than": ["b", 4]}, {"a": {1: 2}, "b": {4: 1}}, True),
        ("rises", {"of": "a"}, {"a": {2: 6, 1: 5}}, True),
        ("rises", {"of": "a"}, {"a": {2: 4, 1: 5}}, False),
        ("falls_somewhere", {"of": "a"}, {"a": {2: 4, 1: 5}}, True),
        ("beats_most", {"of": "a", "than": "b"}, {"a": {None: 5}, "b": {1: 4, 2: 4, 3: 6}}, True),
        ("beats_most", {"of": "a", "than": "b"}, {"a": {None: 5}, "b": {1: 4, 2: 6}}, False),
        ("best_beats", {"of": "b", "than": "a"}, {"a": {None: 5}, "b": {1: 4, 2: 6}}, True),
    ],
)
def test_checks(check, ends, panel, expected):
    """What holds for the means is told by three seeds that agree, unless it is a tie."""
    scores = {
        series: {size: sample(value) for size, value in curve.items()}
        for series, curve in panel.items()
    }
    evidence = figure_claims.CHECKS[check](scores, **ends)
    assert evidence.holds is expected
    assert (evidence.support < 0.025) is expected


def test_paired_difference_by_hand():
    of = Sample(values={0: 5.0, 1: 6.0, 2: 7.0})
    than = Sample(values={0: 4.0, 1: 4.5, 2: 6.0, 9: 50.0})
    found = paired.compare(of, than)  # 1, 1.5, 1: mean 7/6, variance 1/12
    assert (found.value, found.seeds, found.rows) == (pytest.approx(7 / 6), 3, 0)
    assert found.error == pytest.approx(1 / 6) and found.freedom == pytest.approx(2)
    assert found.find_reach() == pytest.approx(4.302653 / 6)  # Student's, two degrees of freedom
    assert found.interval == pytest.approx((7 / 6 - 4.302653 / 6, 7 / 6 + 4.302653 / 6))
    assert found.probability == pytest.approx(0.00990, abs=1e-5)


def test_seeds_that_happen_to_agree_tell_nothing():
    """Three equal differences, but for rounding, without rows: their error is not zero."""
    better = Sample(values={0: 0.8, 1: 0.81, 2: 0.82})
    worse = Sample(values={0: 0.7, 1: 0.71, 2: 0.72})
    found = paired.compare(better, worse)
    assert found.seeds == 3 and found.error is None


def test_rows_add_to_the_error():
    draw = np.random.default_rng(0)
    rows = {seed: 80 + draw.normal(size=200) for seed in range(3)}
    of = Sample(values={0: 80.1, 1: 80.2, 2: 80.0}, rows=rows, count=90)
    than = Sample(values={0: 80, 1: 80, 2: 80}, rows={seed: 80 + 0 * rows[0] for seed in range(3)},
                  count=90)  # fmt: skip
    found = paired.compare(of, than)
    mean = sum(rows.values()) / 3
    assert found.row_error == pytest.approx(mean.std(ddof=1)) and found.rows == 90
    assert found.error == pytest.approx(np.hypot(found.row_error, 0.1 / np.sqrt(3)))
    assert found.freedom > 100 and found.probability > 0.3
    other = Sample(values=than.values, rows=than.rows, count=91)
    assert paired.compare(of, other).rows == 0, "scored on other rows"


def test_one_seed_has_an_interval_over_its_rows_alone():
    """It covers no seeds, so no verdict rests on it."""
    rows = np.random.default_rng(0).normal(80, 0.5, 200)
    of = Sample(values={0: 80.01}, rows={0: rows}, count=90)
    than = Sample(values={0: 80.0}, rows={0: 80 + 0 * rows}, count=90)
    evidence = claims.comparison("a against b", of, than)
    floor = 1.96 * rows.std(ddof=1)
    ends = f"[{0.01 - floor:+.3g}, {0.01 + floor:+.3g}]"
    told = f"a against b: +0.01 {ends} over the rows alone (1 seed)"
    assert claims.describe(evidence) == told
    [told] = claims.judge([Claim(says="it", parts={"p": evidence})])
    assert told.verdict is Verdict.cannot_be_told and "1 of at least 3 shared seeds" in told.reason


def test_two_seeds_tell_nothing():
    found = paired.compare(sample(9.0, {0: 0, 1: 0.1}), sample(1.0))
    assert found.seeds == 2 and found.error is None
    assert found.probability == 1.0 and found.interval is None


def part(support, against=1.0, value=1.0):
    shown = paired.compare(sample(value), sample(0))
    return claims.Evidence(words=f"{support}", shown=shown, holds=value > 0, support=support,
                           against=against, strength=value, tested=shown, denied=shown,
                           seeds=3)  # fmt: skip


@pytest.mark.parametrize("share", [1.0, claims.AS_GOOD])
@pytest.mark.parametrize("side", [0, 1])
def test_a_claim_is_told_from_its_limits_on(share, side):
    """They hold with all corrections: for three panels here, and for another claim."""

    of = {0: 79.9, 1: 80.1, 2: 80.3}
    than = Sample(values={0: 80.0, 1: 80.05, 2: 79.9})

    def tell(shift):
        moved = Sample(values={seed: value + shift for seed, value in of.items()})
        parts = {"a": claims.comparison("a", moved, than, share)}
        parts |= {name: part(1e-9) for name in "bc"}
        [told, _] = claims.judge([Claim(says="it", parts=parts), claim(0.9)])
        return parts["a"], told

    shown, told = tell(0.0)
    evidence = claims.every([shown, part(1e-9), part(1e-9)])
    limit = evidence.find_limits(2)[side]
    assert told.verdict is Verdict.cannot_be_told and f"{limit:+.3g}" in told.needed
    away = 0.001 if side else -0.001
    assert tell(limit - shown.shown.value - away)[1].verdict is Verdict.cannot_be_told
    expected = Verdict.supported if side else Verdict.contradicted
    assert tell(limit - shown.shown.value + away)[1].verdict is expected


def test_a_claims_limits_hold_where_it_moves_among_the_others():
    """At its limit a claim has another place in Holm's order than now."""

    def tell(shift):
        than = Sample(values={0: 80.0, 1: 80.05, 2: 79.9})
        found = []
        for place in range(4):
            moved = 0.3 * (place > 0) + shift * (place == 0)
            of = {seed: value + 0.05 + moved for seed, value in {0: 79.9, 1: 80.1, 2: 80.3}.items()}
            one = claims.comparison("a", Sample(values=of), than)
            found.append(Claim(says="it", parts={"a": one}))
        return found[0].parts["a"], claims.judge(found)

    shown, told = tell(0.0)
    assert {one.verdict for one in told} == {Verdict.cannot_be_told}
    _, limit = shown.find_limits(4)
    assert f"{limit:+.3g}" in told[0].needed
    assert tell(limit - shown.shown.value + 0.001)[1][0].verdict is Verdict.supported


def test_parts_of_which_others_contradict_have_no_lower_limit():
    quiet = claims.comparison("a", sample(0.1), sample(0.0))
    parts = [replace(quiet, support=0.5, against=0.4), replace(quiet, support=0.3, against=0.1)]
    low, high = claims.every(parts).find_limits(1)
    assert low is None and high is not None


def test_as_good_is_as_far_below_a_negative_score():
    """A correlation of -0.05 is as good as itself, and -0.06 is not."""
    than = sample(-5.0)
    same = claims.comparison("a", Sample(values=dict(than.values)), than, claims.AS_GOOD)
    assert same.holds and same.tested.value == pytest.approx(0.05)
    assert not claims.comparison("a", sample(-6.0), than, claims.AS_GOOD).holds


def test_combinations_count_their_parts():
    """One of n comparisons that is enough counts n times; all of them need the weakest."""
    parts = [part(0.001, 0.5), part(0.01, 0.4), part(0.2, 0.03)]
    assert claims.some(parts).support == pytest.approx(0.003)
    assert claims.some(parts).against == pytest.approx(0.5)
    assert claims.every(parts).support == pytest.approx(0.2)
    assert claims.every(parts).against == pytest.approx(0.09)
    assert claims.most(parts).support == pytest.approx(0.02)
    assert claims.every(parts).words == "0.2" and claims.every(parts).comparisons == 3


def claim(support, against=1.0, **more):
    return Claim(says="it", parts={"p": part(support, against, -1 if against < 0.5 else 1)}, **more)


def verdicts(*found):
    return [one.verdict.value for one in claims.judge(found)]


def test_holm_corrects_the_claims_of_a_page():
    assert verdicts(claim(0.02)) == ["supported"]
    assert verdicts(claim(0.02), claim(0.9)) == ["cannot be told", "cannot be told"]
    assert verdicts(claim(0.02), claim(0.001)) == ["supported", "supported"]
    assert verdicts(claim(1.0, 0.001), claim(0.9)) == ["contradicted", "cannot be told"]
    assert verdicts(Claim(says="it", missing=2)) == ["not run"]
    assert verdicts(claim(0.001, missing=1), claim(1.0, 0.001, missing=1)) == [
        "cannot be told", "contradicted"
    ]  # fmt: skip
    [told] = claims.judge([claim(0.001, reasons=["random weights"])])
    assert told.verdict is Verdict.not_comparable and "random weights" in told.reason
    found = [claim(0.02), claim(0.001), Claim(says="it", missing=2)]
    assert claims.summarize(found, claims.judge(found)) == (
        "3 claims: 2 supported, 1 not run; 2 comparisons for 2 tested claims, Holm's correction."
    )


@pytest.fixture(scope="module")
def rte(compose):
    choice = ["model=roberta_base", "task=rte", "method=fourierft"]
    return to_plain(compose(choice))


def test_figure5_from_records(tmp_path, rte):
    """Two of five central frequencies beat no bias on RTE; other panels are missing."""
    scored(tmp_path, rte, 0, 0.79)
    for center, value in {0: 0.8, 100: 0.785, 200: 0.78, 350: 0.77, 480: 0.795}.items():
        changes = {"method.frequency_bias.center": float(center)}
        scored(tmp_path, rte, 0, value, changes=changes, place=tmp_path / f"{center}/seed=0")
    page = registry.build("figure5", run_index.collect(tmp_path))
    shown = text.markdown(page)
    assert "1 of at least 3 shared seeds; holds in 1 of 1 panels; 18 points missing" in shown
    assert page.verdicts == {Verdict.cannot_be_told: 2}
    assert sum(row["seeds"] for row in page.rows) == 6
    [figure] = [picture.draw() for picture in page.pictures]
    assert len(figure.axes) == 4


def test_figure5_of_other_models_tasks_and_sizes(tmp_path, compose):
    """What the paper has not is shown at the sizes that were run, and apart for other rows."""
    for task in ("rte", "sst2"):
        choice = ["model=minilm", f"task={task}", "method=fourierft", "method.n=1000"]
        plain = to_plain(compose(choice))
        cases = [(None, 100, 0.6), (0, 100, 0.61), (500, 100, 0.62), (7, 50, 0.5), (9, None, 0.4)]
        for center, rows, value in cases:
            changes = {"method.frequency_bias.center": center, "task.train_rows": rows}
            place = tmp_path / f"{task}/{center}/{rows}/seed=0"
            scored(tmp_path, plain, 0, value, changes=changes, place=place)
    page = registry.build("figure5", run_index.collect(tmp_path))
    panels = {"RTE, MiniLM, 100 rows", "SST-2, MiniLM, 100 rows"}
    assert {row["panel"] for row in page.rows} - {"RTE", "MRPC", "STS-B", "CoLA"} == panels
    for panel in panels:
        shown = [row for row in page.rows if row["panel"] == panel]
        assert [(row["size"], row["x"], row["ours_best"]) for row in shown] == [
            (0, 0, 61.0), (500, 500, 62.0), (None, None, 60.0)
        ]  # fmt: skip
        assert all("minilm" in row["obstacles"] and "=100" in row["obstacles"] for row in shown)
    assert page.verdicts == {Verdict.not_run: 2}
    points = text.markdown(page).splitlines()
    assert any("another base model" in line and "recipe ours" in line for line in points)
    [figure] = [picture.draw() for picture in page.pictures]
    assert sum(axes.get_visible() for axes in figure.axes) == 6


def test_centres_beyond_the_papers_axis_keep_their_ticks_apart(tmp_path, compose):
    plain = to_plain(compose(["model=minilm", "task=sst2", "method=fourierft"]))
    for center in (0, 9999):
        changes = {"method.n": 1000, "method.frequency_bias.center": center}
        scored(tmp_path, plain, 0, 0.8, changes=changes, place=tmp_path / f"{center}/seed=0")
    page = registry.build("figure5", run_index.collect(tmp_path))
    [figure] = [picture.draw() for picture in page.pictures]
    axes = [one for one in figure.axes if one.get_visible()][-1]
    low, high = axes.get_xlim()
    assert low < 0 < 9999 < high and np.diff(axes.get_xticks()).min() > 0.1 * (high - low)


def test_figure4_of_another_width_is_drawn_at_its_own_numbers(tmp_path, compose):
    """minilm has six blocks of two matrices; the records say 24,000 numbers, 2,000 for each."""
    for method, sizes in {"fourierft": ("n", (50, 2000)), "lora": ("r", (1, 3))}.items():
        plain = to_plain(compose(["model=minilm", "task=sst2", f"method={method}"]))
        for size in sizes[1]:
            changes = {f"method.{sizes[0]}": size}
            if size == 50:
                changes["method.scaling"] = "plain"
            scored(tmp_path, plain, 0, 0.8, changes=changes, place=tmp_path / f"{method}{size}")
    norm = to_plain(compose(["model=minilm", "task=sst2", "method=fourierft"]))
    changes = {"method.n": 77, "method.scaling": "norm"}
    scored(tmp_path, norm, 0, 0.8, changes=changes, place=tmp_path / "norm")
    page = registry.build("figure4", run_index.collect(tmp_path))
    shown = [row for row in page.rows if row["panel"] == "SST-2, MiniLM"]
    assert [(row["series"], row["size"], row["x"]) for row in shown] == [
        ("fourierft", 50, 2000), ("fourierft", 2000, 2000), ("lora", 1, 2000), ("lora", 3, 2000)
    ]  # fmt: skip


def curves(root, compose, seeds, rows=0):
    """Figure 6: FourierFT above LoRA in accuracy, below in F1 and in loss."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, max(rows, 1))
    for method, size, level in (("fourierft", "n=1536", 0.1), ("lora", "r=1", 0.0)):
        choice = ["model=roberta_base", "task=mrpc", f"method={method}", f"method.{size}"]
        plain = to_plain(compose(choice))
        for seed in range(seeds):
            place = scored(root, plain, seed, 0.9)
            shift = 0.001 * seed + (0.0005 * seed if method == "lora" else 0)
            lines = [
                {"step": epoch, "epoch": epoch, "elapsed_s": 1,
                 "validation/accuracy": 0.7 + level + shift, "validation/f1": 0.8 - level + shift,
                 "train/loss": 0.5 - level + shift}
                for epoch in (1, 2, 3)
            ]  # fmt: skip
            (place / "history.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
            for epoch in (1, 2, 3) if rows else ():
                wrong = draw.random(rows) < 0.3 - level
                scores = np.eye(2)[np.where(wrong, 1 - labels, labels)]
                entry = Evaluation(step=epoch, epoch=epoch, predictions=scores, references=labels)
                predictions.save(place, "validation", entry)
    return registry.build("figure6", run_index.collect(root))


def test_figure6_from_histories(tmp_path, compose):
    page = curves(tmp_path, compose, seeds=3)
    shown = text.markdown(page)
    assert page.verdicts == {Verdict.supported: 2, Verdict.contradicted: 1}
    assert "holds in 0 of 3 epochs" in shown and "over 3 seeds alone" in shown
    assert len(next(page.pictures).draw().axes) == 3


def test_one_panel_of_enough_seeds_contradicts_a_claim_on_all():
    few = paired.compare(sample(1.0, {0: 0}), sample(0.0, {0: 0}))
    untold = claims.Evidence(words="few", shown=few, holds=True, support=1.0, against=1.0,
                             strength=1.0, tested=few, denied=few, seeds=1,
                             told=False)  # fmt: skip
    found = Claim(says="it", parts={"p": part(1.0, 0.001, -1.0), "q": untold})
    assert verdicts(found) == ["contradicted"]
    found = Claim(says="it", parts={"p": part(0.001), "q": untold})
    assert verdicts(found) == ["cannot be told"]


def test_figure6_of_one_seed_cannot_be_told(tmp_path, compose):
    page = curves(tmp_path, compose, seeds=1)
    assert page.verdicts == {Verdict.cannot_be_told: 3}
    assert "1 of at least 3 shared seeds" in text.markdown(page)


def test_figure6_is_not_judged_by_the_seeds_that_survived(tmp_path, compose):
    curves(tmp_path, compose, seeds=4)
    [path] = tmp_path.rglob("lora/**/seed=3/history.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["validation/accuracy"] = float("nan")
    path.write_text("\n".join(map(json.dumps, lines)))
    page = registry.build("figure6", run_index.collect(tmp_path))
    assert page.verdicts[Verdict.not_comparable] == 1
    assert "1 of 4 seeds without a score" in text.markdown(page)


def test_figure6_with_few_rows_cannot_be_told(tmp_path, compose):
    """Seeds that agree on 20 rows say nothing about others; the loss has no rows."""
    page = curves(tmp_path, compose, seeds=3, rows=20)
    assert page.verdicts[Verdict.cannot_be_told] >= 1
    assert "and 20 rows" in text.markdown(page)


def points(root, compose, changes=(), seeds=3, lead=0.02):
    """Figure 4 on RTE: n=12288 ahead of r=8 by `lead`."""
    for method, size, value in (("fourierft", "n=12288", 0.78 + lead), ("lora", "r=8", 0.78)):
        choice = ["model=roberta_base", "task=rte", f"method={method}", f"method.{size}"]
        plain = to_plain(compose(choice))
        for seed in range(seeds):
            noise = 0.001 * seed * (1 if method == "lora" else 1.5)
            scored(root, plain, seed, value + noise, changes=dict(changes))
    found = registry.build("figure4", run_index.collect(root))
    lines = [line for line in text.markdown(found).splitlines() if "n=12288 than r=8" in line]
    return found, lines[0]


def test_a_hundredth_of_a_point_on_one_seed_cannot_be_told(tmp_path, compose):
    page, line = points(tmp_path, compose, seeds=1, lead=0.0001)
    assert (
        "**cannot be told**" in line and "1 of at least 3 shared seeds" in line and "+0.01" in line
    )
    assert Verdict.supported not in page.verdicts and Verdict.reproduced not in page.verdicts


def test_a_trial_of_another_recipe_decides_no_claim(tmp_path, compose):
    """It is shown only where there is no other, and named."""
    _, line = points(tmp_path / "a", compose)
    assert "epochs" not in line and "holds in 1 of 1" in line
    page, line = points(tmp_path / "b", compose, {"train.epochs": 1.0})
    assert "**not comparable**" in line and "epochs 1, paper" in line
    plain = to_plain(compose(["model=roberta_base", "task=rte", "method=lora", "method.r=8"]))
    changes = {"train.epochs": 1.0, "variant": "short"}
    scored(tmp_path / "a", plain, 0, 0.99, changes=changes, place=tmp_path / "a/short/seed=0")
    page = registry.build("figure4", run_index.collect(tmp_path / "a"))
    [point] = [row for row in page.rows if row["series"] == "lora" and row["seeds"]]
    assert point["ours_best"] < 80 and point["trials"] == 1


BEYOND = {
    "figure1": ("method.n", (100, 1000), [("vit_large", "dtd"), ("vit_small", "dtd")]),
    "figure4": (
        "method.n",
        (50, 100),
        [("roberta_base", "rte"), ("minilm", "rte"), ("minilm", "qnli")],
    ),
    "figure5": ("method.frequency_bias.center", (0, 100), [("minilm", "rte"), ("minilm", "qnli")]),
}
"""A figure's sizes, and runs that it shows."""


def sized(folder, compose, name, choice, **record):
    """Records of FourierFT at both sizes of a figure; `record` changes what they say."""
    key, sizes, _ = BEYOND[name]
    plain = to_plain(compose([*choice, "method=fourierft", "method.n=1000"]))
    for size in sizes:
        place = folder / "-".join(choice).replace("/", "_") / f"{size}/seed=0"
        scored(folder, plain, 0, 0.8, changes={key: size}, place=place)
        path = place / "metrics.json"
        told = json.loads(path.read_text())
        for part, changed in record.items():
            told[part] = None if changed is None else told[part] | changed
        path.write_text(json.dumps(told))


@pytest.mark.slow
@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize(
    ("broken", "drawn"),
    [
        ({}, True),
        ({"best": None}, False),
        ({"primary": {"name": None}, "best": None, "last": None, "heldout": None}, False),
        ({"best": {"value": 0.8, "interval": None}}, True),
        ({"best": {"value": 0.8, "interval": [0.7, None]}}, True),
    ],
)
def test_records_without_scores_or_intervals(tmp_path, compose, name, broken, drawn):
    """They stop no figure, and what has no score gets no panel beside the paper's."""
    for model, task in BEYOND[name][2]:
        sized(tmp_path, compose, name, [f"model={model}", f"task={task}"], metrics=broken)
    found = run_index.collect(tmp_path)
    assert len(found.runs) == 2 * len(BEYOND[name][2])
    page = registry.build(name, found)
    assert text.markdown(page)
    beyond = [row for row in page.rows if "MiniLM" in row["panel"] or "vit_small" in row["panel"]]
    assert [row["ours_best"] is not None for row in beyond if row["seeds"]] == [True] * (
        2 * drawn * sum(model in ("minilm", "vit_small") for model, _ in BEYOND[name][2])
    )
    shown = {row["panel"] for row in page.rows}
    [figure] = [picture.draw() for picture in page.pictures]
    assert sum(axes.get_visible() for axes in figure.axes) == len(shown)


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_no_result_of_the_figures_kind_has_no_panel(tmp_path, compose, name):
    """Counted runs, tasks that are not GLUE's, and the paper's models at a sister's panel."""
    papers = {row["panel"] for row in registry.build(name, run_index.collect(tmp_path)).rows}
    sized(tmp_path, compose, name, ["model=minilm", "task=rte"], metrics=None)
    sized(tmp_path, compose, name, ["model=mlp", "task=toy"])
    sized(tmp_path, compose, name, ["model=gpt2_medium", "task=e2e"])
    sized(tmp_path, compose, name, ["model=vit_large", "task=dtd"])
    found = run_index.collect(tmp_path)
    assert len(found.runs) == 8
    assert {row["panel"] for row in registry.build(name, found).rows} == papers


@pytest.mark.parametrize("name", ["figure4", "figure5"])
def test_runs_of_other_rows_steps_or_weights_have_panels_of_their_own(tmp_path, compose, name):
    cuts = {
        "": "",
        "task.train_rows=8": ", 8 rows",
        "task.eval_rows=9": ", 9 rows scored",
        "train.max_steps=3": ", 3 steps",
        "model.pretrained=false": ", random weights",
        "profile=smoke": ", 16 rows, 16 rows scored, 2 steps, profile smoke",
    }
    for cut in cuts:
        choice = ["model=minilm", "task=sst2", *([cut] if cut else [])]
        sized(tmp_path, compose, name, choice)
    rows = registry.build(name, run_index.collect(tmp_path)).rows
    shown = {row["panel"] for row in rows if "MiniLM" in row["panel"]}
    assert shown == {f"SST-2, MiniLM{told}" for told in cuts.values()}


@pytest.mark.parametrize("name", ["figure1", "figure3", "figure4", "figure5", "figure6"])
def test_figures_without_runs_are_drawn(tmp_path, name):
    page = registry.build(name, run_index.collect(tmp_path))
    assert next(page.pictures).draw().axes
    assert name == "figure3" or set(page.verdicts) == {Verdict.not_run}


def test_a_trial_that_was_repeated_is_the_one_that_the_search_chose(tmp_path, compose):
    plain = to_plain(compose(["model=roberta_base", "task=rte", "method=fourierft", "method.n=50"]))
    for seed, value in enumerate((0.9, 0.88, 0.87)):
        scored(tmp_path, plain, seed, value)
    rate = {"train.learning_rate": 0.01, "variant": "a"}
    scored(tmp_path, plain, 0, 0.89, changes=rate, place=tmp_path / "a/seed=0")
    page = registry.build("figure4", run_index.collect(tmp_path))
    [point] = [row for row in page.rows if row["seeds"]]
    assert (point["ours_best"], point["trials"], point["seeds"]) == (pytest.approx(265 / 3), 2, 3)


def test_a_searched_point_is_its_best_trial(tmp_path, compose):
    plain = to_plain(compose(["model=roberta_base", "task=rte", "method=fourierft", "method.n=50"]))
    for trial, value in (("a", 0.684), ("bb", 0.905), ("ccc", 0.89)):
        rate = {"train.learning_rate": 0.01 * value, "variant": trial}
        scored(tmp_path, plain, 0, value, changes=rate, place=tmp_path / trial / "seed=0")
    page = registry.build("figure4", run_index.collect(tmp_path))
    [point] = [row for row in page.rows if row["seeds"]]
    assert (point["ours_best"], point["trials"]) == (pytest.approx(90.5), 3)
    assert "best of 3 trials" in text.markdown(page)
