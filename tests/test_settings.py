"""Tables 9 to 12: settings as printed, as used, and why."""

import pytest

from experiments.config.changes import read_recipe
from experiments.report.__main__ import main
from experiments.report.comparison import reference
from experiments.report.comparison.run_index import RunIndex
from experiments.report.pages import registry, settings
from experiments.report.render import text

TABLES = ("table9", "table10", "table11", "table12")


@pytest.fixture(scope="module")
def found():
    """The settings of each table."""
    return {name: list(settings.read_settings(reference.load(name))) for name in TABLES}


@pytest.mark.parametrize("name", TABLES)
def test_every_value_that_is_not_used_has_a_reason_and_no_other(found, name):
    differing = [one for one in found[name] if one.differs]
    assert all(one.why != settings.UNEXPLAINED for one in differing)
    for block in reference.load(name)["blocks"]:
        given = {(key, task) for key, reasons in block["why"].items() for task in reasons}
        mine = [one for one in differing if one.block is block]
        needed = {(one.key, "all") for one in mine} | {(one.key, one.task) for one in mine}
        assert given <= needed, "a reason for a value that is used as printed"


def test_values_that_are_not_used_as_printed(found):
    assert {
        (one.block["model"], one.block["method"], one.task, one.key): (one.printed, one.used)
        for name in ("table9", "table10", "table11")
        for one in found[name]
        if one.differs
    } == {
        ("roberta_base", "fourierft", "qnli", "train.learning_rate"): (0.01, 0.1),
        ("roberta_base", "fourierft", "mrpc", "method.alpha"): (141, 151),
        ("gpt2_medium", "fourierft", "e2e", "train.head_learning_rate"): (2e-4, None),
        ("gpt2_large", "fourierft", "e2e", "train.head_learning_rate"): (1e-4, None),
        ("llama1_7b", "fourierft", "alpaca", "method.n"): (None, 1000),
        ("llama1_7b", "fourierft", "alpaca", "method.alpha"): (16, 300),
        ("llama1_7b", "fourierft", "alpaca", "train.learning_rate"): (3e-3, 3e-2),
        ("llama1_7b", "lora", "alpaca", "method.alpha"): (300, 16),
        ("llama1_7b", "lora", "alpaca", "train.learning_rate"): (3e-2, 3e-3),
    }
    assert {one.key for one in found["table12"] if one.differs} == {"train.select"}


@pytest.mark.parametrize("name", TABLES)
def test_source_printed_runs_the_table_to_the_letter(found, name):
    """But an n that FourierFT cannot do without, and the rate of a head that is not there."""
    for block in reference.load(name)["blocks"]:
        mine = [one for one in found[name] if one.block is block and one.said]
        keys = list(block["printed"])
        literal = read_recipe(block["model"], block["method"], block["tasks"], keys, "printed")
        for one in mine:
            impossible = (name, one.key) in {
                ("table10", "train.head_learning_rate"),
                ("table11", "method.n"),
            }
            expected = one.used if impossible else one.printed
            assert literal[one.task][one.key] == expected, (one.task, one.key)


def test_a_page_says_what_is_printed_what_is_used_and_why(tmp_path):
    page = text.markdown(registry.build("table9", RunIndex(tmp_path)))
    line = next(line for line in page.splitlines() if line.startswith("| RoBERTa-base | mrpc"))
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert cells[2:5] == ["Scaling (alpha)", "141", "151"] and "names of their logs" in cells[5]
    assert "| RoBERTa-base  | Weight decay        |    0 | the authors' script" in page


def test_a_value_of_the_recipe_without_a_reason_is_shown(tmp_path, monkeypatch):
    block = reference.load("table9")["blocks"][1]
    monkeypatch.setitem(block["printed"], "train.warmup_ratio", 0.1)
    page = text.markdown(registry.build("table9", RunIndex(tmp_path)))
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    shown = ["RoBERTa-large", "all", "Warmup ratio", "0.1", "0.06", settings.UNEXPLAINED]
    assert ["", *shown, ""] in cells


def test_the_pages_are_linked(tmp_path, capsys):
    assert main(["table9", "table7", "--outputs", str(tmp_path), "--to", str(tmp_path / "r")]) == 0
    overview = (tmp_path / "r/index.html").read_text()
    assert 'href="table9.html"' in overview and 'href="table7.html"' in overview
    assert 'href="table2.html"' in (tmp_path / "r/table9.html").read_text()
    assert (tmp_path / "r/table2.html").exists()
    assert {name for name, _ in registry.menu()} >= {*TABLES, "table7", "table8"}
