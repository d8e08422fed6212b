"""Groups of finished runs: what is compared with what, and how."""

import json
import shutil

import numpy as np
import pytest

from experiments.metrics.selection import Evaluation
from experiments.report.comparison import run_groups, run_index
from experiments.report.comparison.intervals import Cover
from experiments.report.pages import pareto, your_runs
from experiments.results import predictions
from experiments.results.record import Record, write_record

ROWS = 40


def add_run(
    root,
    method="fourierft",
    seed=0,
    right=(30,),
    *,
    model="minilm",
    task="text",
    config=None,
    data="d" * 64,
    flipped=False,
    finished="2026-11-30T10:00:00+0000",
    parameters=12000,
):
    """Writes a run on rows of two classes; `right` counts the right rows of each epoch.

    The task's data file never existed, as if it were gone since.
    """
    references = np.arange(ROWS) % 2 if not flipped else 1 - np.arange(ROWS) % 2
    evaluations = []
    for epoch, count in enumerate(right, 1):
        said = np.where(np.arange(ROWS) < count, references, 1 - references)
        logits = np.eye(2)[said].astype(np.float32)
        evaluations.append(
            Evaluation(step=epoch, epoch=epoch, predictions=logits, references=references)
        )
    chosen = [
        {
            "epoch": epoch,
            "step": epoch,
            "value": count / ROWS,
            "interval": [0.1, count / ROWS + 0.1],
        }
        for epoch, count in enumerate(right, 1)
    ]
    metrics = {"best": max(chosen, key=lambda one: one["value"]), "last": chosen[-1]}
    metrics["primary"] = {"name": "accuracy", "split": "validation", "select": "best"}
    config = {"model": {}, "task": {}, "method": {}, "train": {}} | (config or {})
    names = {"model": model, "task": task, "method": method}
    config = {key: {**part, "name": names.get(key)} for key, part in config.items()}
    if task == "text":
        config["task"] = {"data": "reviews.csv", "path": "/gone/reviews.csv", **config["task"]}
    place = root / model / task / method / str(len([*root.rglob("metrics.json")]))
    for evaluation in evaluations:
        place.mkdir(parents=True, exist_ok=True)
        predictions.save(place, "validation", evaluation)
    lines = [
        {
            "step": one.step,
            "epoch": one.epoch,
            "elapsed_s": 1.0,
            "validation/accuracy": score / ROWS,
        }
        for one, score in zip(evaluations, right, strict=True)
    ]
    (place / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = Record(
        run={**names, "seed": seed, "variant": "", "profile": None},
        config={**config, "seed": seed},
        parameters={"adapter": parameters, "head": 2, "base": 12, "stored_bytes": 40},
        metrics=metrics,
        time={"train_s": 10.0 + seed, "finished": finished},
        memory={},
        environment={"data": data, "weights": "w", "rows": {"scored validation": ROWS}},
    )
    write_record(place, record)
    return place


def find(root, most=10):
    groups = run_groups.find_groups(run_index.collect(root))
    for group in groups:
        run_groups.add_comparison(group, most)
    return groups


def with_n(n, rate=0.1):
    return {"method": {"n": n}, "train": {"learning_rate": rate}}


def test_own_data_that_are_gone_and_tasks_of_ones_own_are_groups_too(tmp_path):
    add_run(tmp_path, finished="2026-11-30T10:00:00+0000")
    add_run(tmp_path, task="spirals", finished="2026-11-30T12:00:00+0000")
    add_run(tmp_path, task="sst2", finished="2026-11-30T11:00:00+0000")
    groups = find(tmp_path)
    assert [one.title for one in groups] == [
        "MiniLM on spirals",
        "MiniLM on SST-2",
        "MiniLM on reviews.csv (text)",
    ]
    assert {one.conditions for one in groups} == {"40 validation rows scored"}


def test_runs_on_other_rows_are_never_in_one_group(tmp_path):
    add_run(tmp_path)
    add_run(tmp_path, seed=1, data="e" * 64)
    groups = find(tmp_path)
    assert [one.conditions for one in groups] == [
        "40 validation rows scored, data 1 of 2",
        "40 validation rows scored, data 2 of 2",
    ]


def test_cost_and_score_compare_within_one_data_set_alone(tmp_path):
    """The same names of data and task, but other rows: the worse run is efficient there."""
    add_run(tmp_path, right=(38,), parameters=10)
    add_run(tmp_path, method="lora", right=(30,), parameters=20)
    add_run(tmp_path, method="lora", seed=1, right=(30,), parameters=20, data="e" * 64)
    other = {"task": {"data": "stars.csv"}}
    add_run(tmp_path, method="lora", right=(31,), parameters=20, config=other)
    page = pareto.show(run_index.collect(tmp_path))
    assert [(row["data"], row["efficient"]) for row in page.rows] == [
        ("reviews.csv (text)", "parameters time"),
        ("reviews.csv (text)", ""),
        ("reviews.csv (text)", "parameters time"),
        ("stars.csv (text)", "parameters time"),
    ]
    [picture] = page.pictures
    titles = [axes.get_title() for axes in picture.draw().axes]
    assert titles == ["MiniLM on reviews.csv (text)"] * 2, "the others have nothing beside them"


def test_settings_are_named_by_what_tells_them_apart(tmp_path):
    add_run(tmp_path, config=with_n(100))
    add_run(tmp_path, config=with_n(1000), right=(31,))
    add_run(tmp_path, config=with_n(1000, 0.01), right=(32,))
    lora = {"method": {"r": 8, "alpha": 16}, "train": {"learning_rate": 1e-3}}
    add_run(tmp_path, method="lora", config=lora, right=(33,))
    [group] = find(tmp_path)
    assert [one.label for one in group.settings] == [
        "LoRA, r=8",
        "FourierFT, n=1000, learning_rate=0.01",
        "FourierFT, n=1000, learning_rate=0.1",
        "FourierFT, n=100, learning_rate=0.1",
    ]


def test_settings_whose_labels_are_cut_short_are_numbered(tmp_path):
    """Curves are told apart by their labels."""
    for last in range(3):
        rates = dict.fromkeys("abcde", 0) | {"z": last}
        add_run(tmp_path, right=(30 - last,), config={"train": rates})
    add_run(tmp_path, right=(20,), config={"train": dict.fromkeys("abcdez", 1)})
    [group] = find(tmp_path)
    start = "FourierFT, a=0, b=0, c=0, d=0, e=0, …"
    assert [one.label for one in group.settings[:3]] == [start, f"{start} (2)", f"{start} (3)"]


def test_a_difference_of_one_seed_is_over_the_rows_alone(tmp_path):
    add_run(tmp_path, right=(20, 30))
    add_run(tmp_path, method="lora", right=(36, 34))
    [group] = find(tmp_path)
    best, other = group.settings
    assert (best.label, best.scores["best"], best.scores["last"]) == ("LoRA", 0.9, 0.85)
    assert best.difference is None and (best.interval.low, best.interval.high) == pytest.approx(
        (0.1, 1.0)
    )
    assert other.difference.value == pytest.approx(-0.15) and other.difference.interval is None
    assert {best.interval.cover, other.difference_interval.cover} == {Cover.rows}
    # 6 of 40 rows differ: the variance of one row is 0.15 * 0.85.
    assert other.difference.floor == pytest.approx(1.96 * (0.15 * 0.85 / 40) ** 0.5, rel=0.2)


def test_predictions_of_other_rows_are_not_paired(tmp_path):
    add_run(tmp_path)
    add_run(tmp_path, method="lora", right=(36,), flipped=True)
    [group] = find(tmp_path)
    assert group.settings[1].difference.value == pytest.approx(-0.15)
    assert group.settings[1].difference.floor is None
    assert group.settings[1].difference_interval is None


def test_three_seeds_have_an_interval_over_both_within_the_metrics_bounds(tmp_path):
    for seed, right in enumerate((40, 39, 36)):
        add_run(tmp_path, seed=seed, right=(right,))
    [group] = find(tmp_path)
    [one] = group.settings
    assert one.scores["best"] == pytest.approx(115 / 120)
    assert 0.8 < one.interval.low < 0.95 and one.interval.high == 1.0
    assert one.interval.cover is Cover.both
    assert len(one.runs) == 3 and one.seconds == 11


def test_lower_losses_are_better_and_what_diverged_is_last(tmp_path):
    places = [add_run(tmp_path, config=with_n(n)) for n in (1, 2, 3)]
    for place, loss in zip(places, (1.5, None, 1.2), strict=True):
        record = json.loads((place / "metrics.json").read_text())
        record["metrics"]["primary"]["name"] = "cross_entropy"
        record["metrics"]["best"] = {"epoch": 1.0, "step": 1, "value": loss}
        (place / "metrics.json").write_text(json.dumps(record))
    [group] = find(tmp_path)
    assert [one.label for one in group.settings] == [f"FourierFT, n={n}" for n in (3, 1, 2)]
    assert group.settings[2].difference is None
    [table] = your_runs.show(run_index.collect(tmp_path)).tables
    assert "Cross entropy, lower is better" in table.caption
    [table] = pareto.show(run_index.collect(tmp_path)).tables
    assert all(line.cells[1][1].text == "lower is better" for line in table.lines)


def test_a_seed_that_diverged_is_not_left_out_of_a_mean(tmp_path):
    add_run(tmp_path)
    place = add_run(tmp_path, seed=1)
    record = json.loads((place / "metrics.json").read_text())
    record["metrics"]["best"]["value"] = None
    (place / "metrics.json").write_text(json.dumps(record))
    [[one]] = [group.settings for group in find(tmp_path)]
    assert one.scores["best"] is None and one.scores["last"] is not None
    [row] = pareto.show(run_index.collect(tmp_path)).rows
    assert row["best"] is None and row["last"] == one.scores["last"]


def test_a_curve_of_the_score_or_else_of_the_loss(tmp_path):
    place = add_run(tmp_path)
    index = run_index.collect(tmp_path)
    [group] = run_groups.find_groups(index)
    assert run_groups.find_curve_key(group, index) == "validation/accuracy"
    line = {"step": 1, "epoch": 1.0, "elapsed_s": 1.0, "train/loss": 0.5, "train/learning_rate": 1}
    (place / "history.jsonl").write_text(json.dumps(line) + "\n")
    assert run_groups.find_curve_key(group, index) == "train/loss"


def test_curves_of_others_are_drawn_where_the_best_has_none(tmp_path):
    add_run(tmp_path, right=(20, 30))
    (add_run(tmp_path, method="lora", right=(20, 36)) / "history.jsonl").unlink()
    index = run_index.collect(tmp_path)
    [group] = run_groups.find_groups(index)
    assert group.settings[0].label == "LoRA"
    assert run_groups.find_curve_key(group, index) == "validation/accuracy"
    curves, _ = your_runs.show(index).pictures
    told = [text.get_text() for text in curves.draw().legends[0].get_texts()]
    assert told == ["LoRA: no curve", "FourierFT"]


def test_without_predictions_an_interval_is_the_records_over_the_rows(tmp_path):
    """That over a few seeds alone would be too narrow."""
    for seed in range(3):
        shutil.rmtree(add_run(tmp_path, seed=seed, right=(30 + seed,)) / "predictions")
        shutil.rmtree(add_run(tmp_path, "lora", seed=seed, right=(20 - seed**2,)) / "predictions")
    [group] = find(tmp_path)
    best, other = group.settings
    assert best.interval.cover is Cover.rows
    assert best.interval.high == pytest.approx(31 / 40 + 0.1)
    assert other.difference_interval.cover is Cover.seeds


def test_a_task_that_names_a_rule_without_a_score_shows_the_last(tmp_path):
    place = add_run(tmp_path)
    record = json.loads((place / "metrics.json").read_text())
    record["metrics"]["best"] = None
    (place / "metrics.json").write_text(json.dumps(record))
    [group] = find(tmp_path)
    assert (group.rule, group.settings[0].interval.high) == ("last", pytest.approx(0.85))


def test_a_score_whose_record_has_no_interval_has_that_of_its_predictions(tmp_path):
    """As losses of language models."""
    place = add_run(tmp_path)
    record = json.loads((place / "metrics.json").read_text())
    record["metrics"]["best"]["interval"] = None
    (place / "metrics.json").write_text(json.dumps(record))
    [[one]] = [group.settings for group in find(tmp_path)]
    assert one.interval.cover is Cover.rows
    assert one.interval.high - one.interval.low == pytest.approx(
        2 * 1.96 * (0.75 * 0.25 / ROWS) ** 0.5, rel=0.2
    )


def test_a_setting_that_older_records_lack_tells_newer_runs_apart(tmp_path):
    for relative in (False, True):
        rates = {"learning_rate": 0.03, "relative_rate": relative}
        add_run(tmp_path, right=(30 + relative,), config={"train": rates, "method": {"n": 1000}})
    add_run(tmp_path, right=(20,), config={"train": {"learning_rate": 0.03}, "method": {"n": 100}})
    [group] = run_groups.find_groups(run_index.collect(tmp_path))
    assert [one.label for one in group.settings] == [
        "FourierFT, n=1000, relative_rate=true",
        "FourierFT, n=1000",
        "FourierFT, n=100",
    ]
