"""The paper's numbers as this project holds them, against its formulas and against conf/."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import yaml

from experiments.config import compose as config
from experiments.config import sweep
from experiments.config.compose import compose_config, register
from experiments.config.load import load_config
from experiments.report.comparison import figure_claims, paper_table, reference, seed_groups
from experiments.report.comparison.run_index import Run
from experiments.report.pages import figure3
from experiments.results.identity import flatten, to_plain
from experiments.results.record import Record
from fourierft.counting import count

TABLE1 = reference.load("table1")
FIGURE7 = reference.load("figure7")
TABLE5 = reference.load("table5")
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
    if not reference.agrees(*reference.count(cell["printed"]), cell["formula"]):
        wrong.add("count")
    stored = str(cell["storage_printed"]), reference.STORAGE[cell["storage_unit"]]
    if not reference.agrees(*stored, 4 * cell["formula"]):
        wrong.add("storage")
    if cell.get("n_printed", cell.get("n")) != cell.get("n"):
        wrong.add("n")
    assert set(cell.get("misprint", {})) == wrong


@pytest.mark.parametrize(("row", "position", "method"), ROWS)
def test_every_cell_of_table1_is_in_conf(row, position, method, compose):
    cell = [f"model={row['model']}", f"method={method}", f"row={position}"]
    asked = compose(["experiment=table1", *cell])
    size = TABLE1["methods"][method]["size"]
    assert getattr(asked.method, size) == row[method][size]
    assert not asked.mode.trains and asked.task.name == "none"


def test_figure7_is_what_conf_runs():
    register()
    states = FIGURE7["states"]
    sweep = yaml.safe_load((CONF / "experiment/figure7.yaml").read_text())["hydra"]["sweeper"][
        "params"
    ]
    assert sweep["seed"] == ",".join(map(str, FIGURE7["seeds"]["ours"]))
    assert set(sweep["method"].split(",")) == set(states["methods"])
    for method, said in states["methods"].items():
        asked = load_config(compose_config(["experiment=figure7", f"method={method}"]))
        assert (asked.model.name, asked.task.name) == (FIGURE7["model"], FIGURE7["task"])
        assert getattr(asked.method, said["size"]) == said["value"]
        assert asked.train.epochs == states["epochs"] and asked.variant == ""
        assert asked.task.head.labels == states["classes"]
        assert asked.task.head.inputs == states["input_dimensions"]


def test_figure7_sizes_train_the_same_number():
    rows, columns = FIGURE7["states"]["hidden"]
    methods = FIGURE7["states"]["methods"]
    assert methods["lora"]["value"] * (rows + columns) == FIGURE7["states"]["trained_parameters"]
    assert methods["fourierft"]["value"] == FIGURE7["states"]["trained_parameters"]


@pytest.mark.parametrize("name", reference.names())
def test_every_reference_names_its_source_and_command(name):
    facts = reference.load(name)
    assert "2405.03003" in facts["source"] and facts["claim"] and facts["title"]
    if facts["run"] is None:
        assert facts["reason"]
        return
    program, target = facts["run"].split()
    makefile = (CONF.parent / "Makefile").read_text()
    runs = re.search(r"^RUNS := (.*)$", makefile, re.M)[1].split()
    assert program == "make" and (target in runs or f"\n{target}: install" in makefile)
    assert any(path.stem.split("_")[0] == target for path in CONF.glob("experiment/*.yaml"))


def test_every_table_has_a_protocol():
    """But Table 1, which is counted, and those of data sets and settings."""
    scores = {name for name in reference.names() if "rows" in reference.load(name)} - {"table1"}
    assert {f"table{number}" for number in (2, 3, 4, 5, 6, 13)} <= scores
    assert scores <= set(reference.protocols())
    for how in reference.protocols().values():
        assert how["statistic"] in ("median", "mean") and how["select"] in ("best", "last")
        assert how["spread"] in (None, 0, 1) and how["said"] and how["open"]
        assert how["seeds"] is None or len(how["seeds"]) == how["runs"]


def test_weights_are_those_of_conf():
    known = reference.weights()
    for path in (CONF / "model").glob("*.yaml"):
        if path.stem in known:
            assert yaml.safe_load(path.read_text())["repo"] == known[path.stem]["repo"]


TABLES = [name for name in reference.names() if "how" in reference.load(name)]
EXPERIMENTS = {table: [] for table in TABLES} | {
    table: [name for name in sweep.list_experiments() if name.split("_")[0] == table]
    for table in dict.fromkeys(name.split("_")[0] for name in sweep.list_experiments())
    if table != "table1"  # test_every_cell_of_table1_is_in_conf
}
"""The sweeps of conf/experiment/ by the table or figure that they are of."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_sweeps_are_of_runs_that_answer_every_cell_of_the_paper(name):
    """Every cell of the sweeps is a run, and every printed cell has one, or a reason why not."""
    runs = [run_of(cell) for one in EXPERIMENTS[name] for cell in sweep.compose_cells(one)]
    if name not in TABLES:
        return
    facts = reference.load(name)
    for row, column in itertools.product(paper_table.rows(facts), paper_table.columns(facts)):
        wanted = {"model": row.model, "task": column.task, "method": row.method, **row.fields}
        answers = [run for run in runs if row.method and seed_groups.answers(run, wanted)]
        assert bool(answers) is (row.unavailable is None), (row.label, column.key)
        for run in answers:
            values = flatten(run.record.config)
            assert [values[key] for key in row.fields] == list(row.fields.values())
            assert column.judged or column.metric in run.record.config["task"]["metrics"]


def run_of(cell):
    """The run of a cell of a sweep, as its record would tell it."""
    assert cell.config is not None, cell.problem
    found = to_plain(cell.config)
    assert found["experiment"] is not None
    run = {part: found[part]["name"] for part in ("model", "task", "method")}
    rest = dict.fromkeys(("parameters", "time", "memory", "environment"), {})
    return Run(Path(), Record(run=run, config=found, **rest))


@pytest.mark.parametrize("name", TABLES)
def test_averages_are_the_means_of_the_printed_cells(name):
    facts = reference.load(name)
    for row in (row for row in facts["rows"] if "average" in row):
        values = [paper_table.pair(row, column.key)[0] for column in paper_table.columns(facts)]
        digits = 10 ** -max(len(str(row["average"]).partition(".")[2]), 1)
        assert abs(sum(values) / len(values) - row["average"]) <= 0.51 * digits


def test_table2_counts_and_logs():
    facts = reference.load("table2")
    for row in facts["rows"]:
        if row["method"] == "fourierft":
            assert reference.agrees(*reference.count(row["printed"]), row["formula"])
            for task, logged in row["logs"].items():
                printed = row["cells"][task][0]
                matches = logged is None or reference.agrees(str(printed), 1, logged["best"])
                assert matches is (task not in row["suspect"] or task in ("rte", "stsb")) or (
                    row["model"] == "roberta_large"
                )
                assert logged is None or logged["last"] < logged["best"]


OF_TABLE2 = [row for row in reference.load("table2")["rows"] if "formula" in row]


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", OF_TABLE2, ids=lambda row: f"{row['model']}-{row['method']}-{row['printed']}"
)
def test_counts_of_table2_are_those_of_built_models(row, compose):
    """Whatever the paper leaves open, the size shown makes the number that it prints."""
    size = reference.load("table2")["methods"][row["method"]]["size"]
    choice = [f"model={row['model']}", f"method={row['method']}", f"method.{size}={row[size]}"]
    asked = compose([*choice, "task=cola"])
    net = asked.method.apply(asked.model.build(asked.task.head, None, meta=True), asked.model.head)
    found = count(net, asked.model.head).adapter
    if row["method"] == "adalora":  # trains more until the budget is reached
        found = found * asked.method.target_r // asked.method.init_r
    assert found == row["formula"]
    assert reference.agrees(*reference.count(row["printed"]), row["formula"])


def test_table6_drops_and_its_first_column():
    facts, table2 = reference.load("table6"), reference.load("table2")
    for row in facts["rows"]:
        [first] = [
            one
            for one in facts["rows"]
            if one["model"] == row["model"] and one["name"] == "Fourier"
        ]
        for task, drop in (row.get("drop") or {}).items():
            of, here = first["cells"][task][0], row["cells"][task][0]
            assert reference.agrees(str(drop), 1, round(100 * (of - here) / of, 6))
        if row["name"] == "Fourier":
            [same] = [
                one
                for one in table2["rows"]
                if (one["model"], one["method"]) == (row["model"], "fourierft")
            ]
            assert all(same["cells"][task][0] == row["cells"][task][0] for task in row["cells"])


def test_text_shares_are_the_formulas():
    facts = reference.load("text")
    modelled = {row["model"] for row in TABLE1["rows"]}
    assert {entry["model"] for entry in facts["shares"]} - modelled == {"sd15"}
    for entry in facts["shares"]:
        if entry["model"] not in modelled:
            continue
        sizes = next(
            one
            for name, one in TABLE1["architectures"].items()
            if any(row["model"] == entry["model"] and row["base"] == name for row in TABLE1["rows"])
        )
        assert entry["fourierft"]["formula"] == entry["fourierft"]["n"] * sizes["L_t"]
        assert entry["lora"]["formula"] == 2 * sizes["d"] * sizes["L_t"] * entry["lora"]["r"]


@pytest.mark.parametrize("name", ["figure1", "figure4", "figure5"])
def test_sweeps_name_known_series_and_checks(name):
    facts = reference.load(name)
    keys = {panel.get("key", panel["task"]) for panel in facts["panels"]}
    for claim in facts["claims"]:
        assert claim["check"] in figure_claims.CHECKS and set(claim["panels"]) <= keys
    for panel in facts["panels"]:
        series = panel.get("series") or facts["series"]
        for named, marks in (panel.get("known") or {}).items():
            assert {size for size, _ in marks} <= set(series[named]["values"])
        for said in series.values():
            assert {size for size, _ in said.get("known", [])} <= set(said["values"])


def test_known_points_are_those_of_the_tables():
    table2 = reference.load("table2")
    rows = {row["method"]: row for row in table2["rows"] if row["model"] == "roberta_base"}
    for name, series in (("figure4", {"fourierft": "fourierft", "lora": "lora"}),
                         ("figure5", {"unbiased": "fourierft"})):  # fmt: skip
        for panel in reference.load(name)["panels"]:
            for named, marks in panel["known"].items():
                assert marks[0][1] == rows[series[named]]["cells"][panel["task"]][0]


def test_figure3_is_the_packages_map():
    """The report draws Equation 5 without torch; the package's own formula is the same."""
    from fourierft import band_pass

    facts = reference.load("figure3")
    for center in facts["centers"]:
        drawn = np.fft.ifftshift(figure3.centred(facts, center))
        own = band_pass(facts["shape"], center, facts["bandwidth"]).numpy()
        np.testing.assert_allclose(drawn, own, rtol=1e-12, atol=1e-300)


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
    digits, worth = reference.count(printed)
    assert reference.agrees(digits, worth, exact) is expected
    assert Decimal(digits) * worth == pytest.approx(exact, rel=0.01)


OF_IMAGES = [
    (row["model"], row["method"], row.get("n") or row.get("r"), row) for row in TABLE5["rows"]
]


@pytest.mark.parametrize(("model", "method", "size", "row"), OF_IMAGES)
def test_counts_of_table5_are_those_of_built_models(model, method, size, row):
    register()
    key = TABLE5["methods"][method].get("size")
    sizes = [f"method.{key}={size}", "method.alpha=1"] if key else []
    choice = [f"model={model}", "task=cifar10", f"method={method}", "mode=count", "source=none"]
    asked = load_config(compose_config([*choice, *sizes]))
    net = asked.method.apply(asked.model.build(asked.task.head, None, meta=True), asked.model.head)
    trained = count(net, asked.model.head)
    assert trained.adapter == row["formula"]
    assert trained.head == 10 * TABLE5["models"][model]["d"] + 10
    if row["printed"] is not None:
        agrees = reference.agrees(*reference.count(row["printed"]), row["formula"])
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
