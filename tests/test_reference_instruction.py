"""Table 4 as this project holds it: counts of built models, formulas, and what conf/ runs."""

import itertools

import pytest

from experiments.report.comparison import reference
from experiments.run.build import count_parameters
from fourierft.counting import lora_parameters

TABLE4 = reference.load("table4")
ROWS = TABLE4["rows"]
NAMES = [f"{row['model']} {row['method']}" for row in ROWS]


def formula(row):
    sizes = TABLE4["architectures"][row["base"]]
    value = TABLE4["methods"][row["method"]]["value"]
    d, wide = sizes["d"], sizes["d_ff"]
    if row["method"] == "fourierft":
        return value * sizes["L_t"]
    if row["method"] == "lora":
        return lora_parameters([(d, d)] * sizes["L_t"], value)
    return lora_parameters(([(d, d)] * 4 + [(d, wide)] * 3) * sizes["blocks"], value)


def test_every_base_model_has_every_method():
    cells = [(row["base"], row["method"]) for row in ROWS]
    assert sorted(cells) == sorted(itertools.product(TABLE4["architectures"], TABLE4["methods"]))
    assert all(set(row["results"]) == set(TABLE4["benchmarks"]) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_formula_recomputed(row):
    assert row["formula"] == formula(row)
    sizes = TABLE4["architectures"][row["base"]]
    assert sizes["model"] == row["model"] and sizes["L_t"] == 2 * sizes["blocks"]


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_misprints_are_exactly_the_counts_that_are_not_the_formulas(row):
    fits = reference.agrees(*reference.count(row["printed"]), row["formula"])
    assert set(row.get("misprint", {})) == (set() if fits else {"count"})


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_built_models_have_the_formulas_numbers(row, compose):
    run = compose(
        [
            "experiment=table4",
            "task=alpaca",
            "mode=count",
            f"model={row['model']}",
            f"method={row['method']}",
        ]
    )
    assert getattr(run.method, TABLE4["methods"][row["method"]]["size"]) in (64, 1000)
    net = run.model.build(run.task.head, None, meta=True)
    assert count_parameters(run.method.apply(net, run.model.head), [])["adapter"] == row["formula"]


def test_conf_runs_the_table(compose):
    run = compose(["experiment=table4", "task=alpaca", "model=llama2_7b", "method=lora_all"])
    assert (run.task.name, run.recipe, run.train.epochs) == (TABLE4["task"], "paper", 1)
    assert run.experiment == "table4" and run.variant == ""


def test_flags_are_true():
    cells = {(row["model"], row["method"]): row["results"] for row in ROWS}
    value = {key: results["mt_bench"]["value"] for key, results in cells.items()}
    assert value["llama2_7b", "fourierft"] < value["llama2_7b", "lora"]
    assert value["llama1_13b", "fourierft"] < value["llama1_13b", "lora_all"]
    for model in {row["model"] for row in ROWS}:
        for benchmark in TABLE4["benchmarks"]:
            found = [cells[model, method][benchmark] for method in TABLE4["methods"]]
            gap = max(one["value"] for one in found) - min(one["value"] for one in found)
            assert gap < max(one["std"] for one in found)
