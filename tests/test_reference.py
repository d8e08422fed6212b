"""The paper's numbers as this project holds them, against its formulas and against conf/."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from experiments import config
from experiments.report import paper
from fourierft.counting import count

TABLE1 = paper.load("table1")
FIGURE7 = paper.load("figure7")
TABLE5 = paper.load("table5")
CONF = Path(config.CONF)
ROWS = [
    (row, position, method)
    for rows in (
        [row for row in TABLE1["rows"] if row["model"] == model]
        for model in dict.fromkeys(row["model"] for row in TABLE1["rows"])
    )
    for position, row in enumerate(rows)
    for method in TABLE1["methods"]
]


def formula(row: dict, method: str) -> int:
    """2*d*L_t*r or n*L_t."""
    sizes = TABLE1["architectures"][row["base"]]
    if method == "lora":
        return 2 * sizes["d"] * sizes["L_t"] * row["lora"]["r"]
    return row["fourierft"]["n"] * sizes["L_t"]


def test_table1_holds_sixteen_rows_of_both_methods():
    assert len(TABLE1["rows"]) == 16 and len(ROWS) == 32
    assert {row["base"] for row in TABLE1["rows"]} == set(TABLE1["architectures"])


def test_adapted_weights_are_query_and_value_of_every_block():
    assert all(sizes["L_t"] == 2 * sizes["blocks"] for sizes in TABLE1["architectures"].values())


@pytest.mark.parametrize(("row", "position", "method"), ROWS)
def test_formula_recomputed(row, position, method):
    assert row[method]["formula"] == formula(row, method)


def test_worked_example_of_the_paper():
    example = TABLE1["example"]
    row = {"base": example["base"], "lora": example["lora"], "fourierft": example["fourierft"]}
    for method in TABLE1["methods"]:
        assert formula(row, method) == example[method]["count"]


@pytest.mark.parametrize(("row", "position", "method"), ROWS)
def test_misprints_are_exactly_the_values_that_are_not_the_formulas(row, position, method):
    cell = row[method]
    wrong = set()
    if not paper.agrees(*paper.count(cell["printed"]), cell["formula"]):
        wrong.add("count")
    stored = str(cell["storage_printed"]), paper.STORAGE[cell["storage_unit"]]
    if not paper.agrees(*stored, 4 * cell["formula"]):
        wrong.add("storage")
    if cell.get("n_printed", cell.get("n")) != cell.get("n"):
        wrong.add("n")
    assert set(cell.get("misprint", {})) == wrong


@pytest.mark.parametrize(("row", "position", "method"), ROWS)
def test_every_cell_of_table1_is_in_conf(row, position, method):
    config.register()
    overrides = [
        "experiment=table1",
        f"model={row['model']}",
        f"method={method}",
        f"row={position}",
    ]
    asked = config.load(config.composed(overrides))
    size = TABLE1["methods"][method]["size"]
    assert getattr(asked.method, size) == row[method][size]
    assert not asked.mode.trains and asked.task.name == "none"


def test_figure7_is_what_conf_runs():
    config.register()
    states = FIGURE7["states"]
    sweep = yaml.safe_load((CONF / "experiment/figure7.yaml").read_text())["hydra"]["sweeper"][
        "params"
    ]
    assert sweep["seed"] == ",".join(map(str, FIGURE7["seeds"]["ours"]))
    assert set(sweep["method"].split(",")) == set(states["methods"])
    for method, said in states["methods"].items():
        asked = config.load(config.composed(["experiment=figure7", f"method={method}"]))
        assert (asked.model.name, asked.task.name) == (FIGURE7["model"], FIGURE7["task"])
        assert getattr(asked.method, said["size"]) == said["value"]
        assert asked.train.epochs == states["epochs"] and asked.variant == ""
        assert asked.task.head.labels == states["classes"]
        assert asked.task.head.inputs == states["input_dimensions"]


def test_figure7_sizes_train_the_same_number():
    rows, columns = FIGURE7["states"]["hidden"]
    methods = FIGURE7["states"]["methods"]
    assert methods["lora"]["value"] * (rows + columns) == FIGURE7["states"]["trained_numbers"]
    assert methods["fourierft"]["value"] == FIGURE7["states"]["trained_numbers"]


@pytest.mark.parametrize("name", sorted({*paper.names()} - {*paper.OWN}))
def test_every_reference_names_its_source_and_command(name):
    facts = paper.load(name)
    assert "2405.03003" in facts["source"] and facts["claim"] and facts["title"]
    experiment = facts["run"].partition("experiment=")[2]
    assert (CONF / f"experiment/{experiment}.yaml").exists()


@pytest.mark.parametrize(
    ("printed", "exact", "expected"),
    [
        ("147K", 147456, True),
        ("33.5M", 33554432, False),  # would round to 33.6M
        ("312K", 312500, True),  # a tie may go either way
        ("313K", 312500, True),
        ("239K", 240000, False),
        ("500", 500, True),
    ],
)
def test_printed_digits(printed, exact, expected):
    digits, worth = paper.count(printed)
    assert paper.agrees(digits, worth, exact) is expected
    assert Decimal(digits) * worth == pytest.approx(exact, rel=0.01)


OF_IMAGES = [
    (row["model"], row["method"], row.get("n") or row.get("r"), row) for row in TABLE5["rows"]
]


@pytest.mark.parametrize(("model", "method", "size", "row"), OF_IMAGES)
def test_counts_of_table5_are_those_of_built_models(model, method, size, row):
    config.register()
    key = TABLE5["methods"][method].get("size")
    sizes = [f"method.{key}={size}", "method.alpha=1"] if key else []
    choice = [f"model={model}", "task=cifar10", f"method={method}", "mode=count", "source=none"]
    asked = config.load(config.composed([*choice, *sizes]))
    net = asked.method.apply(asked.model.build(asked.task.head, None, meta=True), asked.model.head)
    trained = count(net, asked.model.head)
    assert trained.adapter == row["formula"]
    assert trained.head == 10 * TABLE5["models"][model]["d"] + 10
    if row["printed"] is not None:
        agrees = paper.agrees(*paper.count(row["printed"]), row["formula"])
        assert agrees is ("misprint" not in row)


def test_misprints_of_table5():
    assert {row["printed"] for row in TABLE5["rows"] if "misprint" in row} == {"581K", "239K"}


@pytest.mark.parametrize(("model", "method", "size", "row"), OF_IMAGES)
def test_averages_of_table5_are_those_of_its_cells(model, method, size, row):
    assert list(row["cells"]) == TABLE5["order"] == list(TABLE5["datasets"])
    means = [Decimal(str(mean)) for mean, _ in row["cells"].values()]
    assert abs(sum(means) / 8 - Decimal(str(row["average"]))) <= Decimal("0.005")
    assert all(0 < spread < 2 for _, spread in row["cells"].values())


def test_table5_has_five_rows_of_either_model():
    rows = [(model, method, size) for model, method, size, _ in OF_IMAGES]
    assert len(set(rows)) == len(rows) == 10
    assert {model for model, *_ in rows} == set(TABLE5["models"])
