"""Table 3 as this project holds it: counts of built networks, misprints, what conf/ runs."""

import pytest
import yaml

from experiments.config.compose import CONF, register
from experiments.report.comparison import reference
from experiments.run.build import count_parameters

TABLE3 = reference.load("table3")
COUNTED = [row for row in TABLE3["rows"] if row["formula"] is not None]


def name(row):
    return f"{row['model']} {row['printed_name']} {row['printed']}"


def size_of(row):
    """The size that conf/ does not know without a recipe."""
    method = TABLE3["methods"][row["method"]]
    if "size" not in method:
        return []
    size = method.get("value", row.get(method["size"]))
    return [f"method.{method['size']}={size}", *(["method.alpha=1"] if "value" in method else [])]


def test_table3_holds_eleven_rows():
    assert len(TABLE3["rows"]) == 11 and COUNTED == TABLE3["rows"]
    assert {row["base"] for row in TABLE3["rows"]} == set(TABLE3["architectures"])
    for row in [*TABLE3["rows"], *TABLE3["lora_paper"]["rows"]]:
        assert list(row["results"]) == TABLE3["metrics"]
        for metric, cell in row["results"].items():
            low, high = (40, 80) if metric in TABLE3["in_percent"] else (2, 9)
            assert low < cell["value"] < high and (cell["std"] is None or 0 <= cell["std"] < 1)
    for row in TABLE3["rows"]:
        assert ("copied" in row) is (row["method"] not in ("lora", "fourierft"))


@pytest.mark.slow
@pytest.mark.parametrize("row", COUNTED, ids=name)
def test_formulas_are_the_counts_of_the_built_networks(row, compose):
    """The same modules that a run trains, allocated on no device."""
    register()
    choice = ["mode=count", "task=none", "source=none", f"model={row['model']}"]
    asked = compose([*choice, f"method={row['method']}", *size_of(row)])
    net = asked.model.build(asked.task.head, None, meta=True)
    counts = count_parameters(asked.method.apply(net, asked.model.head), asked.model.head)
    assert (counts["adapter"], counts["head"]) == (row["formula"], 0)
    shape = TABLE3["architectures"][row["base"]]
    d, width, blocks = shape["d"], row.get("width", 0), shape["blocks"]
    expected = {
        "lin": blocks * (2 * d * width + width + 3 * d),
        "houlsby": 2 * blocks * (2 * d * width + width + d),
        "lora": 2 * shape["d"] * shape["L_t"] * TABLE3["methods"]["lora"]["value"],
        "fourierft": TABLE3["methods"]["fourierft"]["value"] * shape["L_t"],
    }
    assert row["formula"] == expected.get(row["method"], row["formula"])


@pytest.mark.parametrize("row", TABLE3["rows"], ids=name)
def test_misprints_are_exactly_the_counts_that_are_not_the_formulas(row):
    right = row["formula"] is None or reference.agrees(
        *reference.count(row["printed"]), row["formula"]
    )
    assert ("misprint" in row) is not right


@pytest.mark.parametrize("share", TABLE3["shares"], ids=lambda share: share["base"])
def test_shares(share):
    rows = {row["method"]: row for row in COUNTED if row["base"] == share["base"]}
    exact = 100 * rows["fourierft"]["formula"] / rows["lora"]["formula"]
    assert round(exact, 2) == share["exact"]
    digits = [reference.count(rows[method]["printed"]) for method in ("fourierft", "lora")]
    printed = [float(number) * worth for number, worth in digits]
    assert round(100 * printed[0] / printed[1], 1) == share["printed"]


def test_conf_runs_what_the_authors_ran(compose):
    path = CONF / "experiment/table3.yaml"
    swept = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    assert swept["seed"] == ",".join(map(str, TABLE3["seeds"]["ours"]))
    assert swept["task"] == TABLE3["task"]
    own = [row for row in TABLE3["rows"] if "copied" not in row]
    assert {row["model"] for row in own} == set(swept["model"].split(","))
    assert {row["method"] for row in own} <= set(swept["method"].split(","))
    for row in own:
        asked = compose(["task=e2e", f"model={row['model']}", f"method={row['method']}"])
        method = TABLE3["methods"][row["method"]]
        assert getattr(asked.method, method["size"]) == method["value"]
        assert asked.task.metrics == TABLE3["metrics"] and asked.train.select.value == "last"
        assert asked.variant == "" and asked.recipe == "paper"
