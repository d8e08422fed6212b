"""Tables of scores: which runs answer a cell, and which never get a verdict."""

import csv
import json
import shutil

import pytest
import yaml
from records import scored

from experiments.config.run_config import Config
from experiments.errors import RecordError
from experiments.report.__main__ import main
from experiments.report.comparison import cells, paper_table, reference, run_index
from experiments.report.comparison.recipe_match import UNVERIFIED
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import registry, tables, text_numbers
from experiments.report.render import text
from experiments.results.identity import to_plain

SEEDS = (0, 11111, 22222, 33333, 44444)
COLA = (0.648, 0.638, 0.635, 0.654, 0.614)  # the authors' logs, about: median 63.8
LAST = (0.552, 0.494, 0.551, 0.564, 0.522)


@pytest.fixture(scope="module")
def plain(compose):
    """Function: overrides -> plain configuration."""
    return lambda *overrides: to_plain(compose(list(overrides)))


@pytest.fixture(scope="module")
def cola(plain):
    return plain("model=roberta_base", "task=cola", "method=fourierft")


def found(root, task="cola", method="fourierft", table="table2", **row):
    """A cell of a table, filled from what lies below `root`."""
    there = run_index.collect(root)
    wanted = {"model": "roberta_base", "label": None} | row
    return next(
        cell
        for cell in cells.fill(reference.load(table), there)
        if cell.column.task == task
        and (cell.row.method, cell.row.model) == (method, wanted["model"])
        and wanted["label"] in (None, cell.row.label)
    )


def five(root, config, values=COLA, **more):
    for seed, value, last in zip(SEEDS, values, LAST, strict=True):
        scored(root, config, seed, value, last=last, **more)


def test_a_whole_cell_is_reproduced(tmp_path, cola):
    five(tmp_path, cola)
    cell = found(tmp_path)
    assert cell.ours["best"].centre == pytest.approx(63.8)
    assert cell.ours["last"].centre == pytest.approx(55.1)
    assert cell.verdict("best").value == "reproduced"
    assert cell.verdict("last").value == cell.verdict("heldout").value == "not comparable"
    assert cells.OTHER_RULE in cell.judgements["last"].reason


@pytest.mark.parametrize(
    ("source", "recipe", "mark"),
    [("paper", "paper", ""), ("paper", "ours", " (ours)"), ("printed", "paper", ""),
     ("printed", "printed", ""), ("authors", "paper", " (paper)"), ("none", "none", "")],
)  # fmt: skip
def test_a_cell_says_that_its_values_are_of_another_source(tmp_path, cola, source, recipe, mark):
    five(tmp_path, cola, changes={"source": source, "recipe": recipe})
    page = text.markdown(registry.build("table2", run_index.collect(tmp_path)))
    (row, _) = [line for line in page.splitlines() if "FourierFT, n=1000 (" in line]
    assert f"63.8{mark} / 63.8" in row
    assert f"[recipe {recipe}{f' (source={source} has none)' if mark else ''}" in page


def test_the_authors_orientation_answers_the_papers_cells(tmp_path, plain, cola):
    authors = plain("model=roberta_base", "task=cola", "method=fourierft", "source=authors")
    assert authors["method"]["orientation"] == "algorithm1"
    five(tmp_path, authors)
    cell = found(tmp_path)
    assert cell.incomparable_reasons == [] and cell.verdict("best").value == "reproduced"
    older = {**cola, "method": {k: v for k, v in cola["method"].items() if k != "orientation"}}
    assert Config.identify(older) == Config.identify(cola)
    five(tmp_path, older)  # of before there were two
    assert found(tmp_path).verdict("best").value == "reproduced"


def test_a_cell_that_is_not(tmp_path, cola):
    five(tmp_path, cola, [value - 0.05 for value in COLA])
    told = found(tmp_path).judgements["best"]
    assert told.verdict.value == "not reproduced" and told.reason.startswith("below")


@pytest.mark.parametrize(
    ("changes", "more", "reason"),
    [
        ({"profile": "smoke"}, {}, "a smoke test (profile smoke)"),
        ({"model.pretrained": False}, {"weights": None}, "random weights"),
        ({"task.train_rows": 800}, {}, "a subset (train_rows=800)"),
        ({"task.eval_rows": 80}, {}, "a subset (eval_rows=80)"),
        ({"train.max_steps": 2}, {}, "a subset (max_steps=2)"),
        ({"model.repo": "somebody/roberta"}, {}, "weights of somebody/roberta"),
    ],
)
def test_what_never_gets_a_verdict(tmp_path, cola, changes, more, reason):
    five(tmp_path, cola, changes=changes, **more)
    cell = found(tmp_path)
    assert cell.ours["best"].centre == pytest.approx(63.8), "shown all the same"
    assert cell.verdict("best").value == "not comparable"
    assert reason in cell.judgements["best"].reason


def test_too_few_seeds_and_cut_files(tmp_path, cola, monkeypatch):
    five(tmp_path, cola)
    shutil.rmtree(next(tmp_path.rglob("seed=44444")))
    assert found(tmp_path).judgements["best"].reason == "4 of 5 seeds"
    monkeypatch.setitem(reference.load("table2")["datasets"], "cola", {"validation": "900"})
    assert "1,043 rows of validation" in found(tmp_path).judgements["best"].reason


def forget_weights(monkeypatch):
    """Forget the published fingerprint of RoBERTa-base."""
    unknown = {"repo": "FacebookAI/roberta-base", "fingerprint": None}
    monkeypatch.setitem(reference.weights(), "roberta_base", unknown)


def test_weights_must_agree(tmp_path, cola, plain, monkeypatch):
    five(tmp_path, cola)
    rte = plain("model=roberta_base", "task=rte", "method=fourierft")
    scored(tmp_path, rte, 0, 0.79, weights="other")
    assert "weights" not in found(tmp_path).judgements["best"].reason
    assert "another fingerprint" in found(tmp_path, "rte").judgements["best"].reason
    forget_weights(monkeypatch)
    assert "different weights" in found(tmp_path).judgements["best"].reason


def test_seeds_of_other_data_are_not_averaged(tmp_path, cola):
    """Each seed has a folder of its own, so that no run was refused."""
    five(tmp_path, cola)
    scored(tmp_path, cola, 0, 0.99, data="e" * 64)
    cell = found(tmp_path)
    assert cell.ours["best"].values.keys() == set(SEEDS[1:])
    assert [set(one.runs) for one in cell.others] == [{0}]
    assert cell.judgements["best"].reason == "4 of 5 seeds"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train data", "runs of this task differ in their train data"),
        ("tokenizer", "runs of this model differ in their tokenizer"),
        ("code of method fourierft", "runs of this method differ in their code of method"),
    ],
)
def test_inputs_must_agree(tmp_path, cola, plain, name, reason):
    five(tmp_path, cola, inputs={name: "a" * 64})
    assert found(tmp_path).judgements["best"].verdict.value == "reproduced"
    lora = plain("model=roberta_base", "task=cola", "method=fourierft", "method.n=200")
    scored(tmp_path, lora, 0, 0.79, inputs={name: "b" * 64})
    assert reason in found(tmp_path).judgements["best"].reason


def test_sizes_biases_and_bases_are_other_cells(tmp_path, cola):
    for place, changes in enumerate(
        (
            {"method.n": 200},
            {"method.frequency_bias.center": 100.0},
            {"method.basis": "random"},
            {"method.targets": ["key"]},
        )
    ):
        scored(tmp_path, cola, 0, 0.6, changes=changes, place=tmp_path / f"run{place}" / "seed=0")
    assert found(tmp_path).verdict("best").value == "not run"
    cell = found(tmp_path, table="table6", label="Random, n=1000")
    assert cell.ours["best"].centre == pytest.approx(60.0)


def test_a_rank_that_is_evaluated_apart_is_another_cell(tmp_path, plain):
    """Table 2 has DyLoRA at the rank whose numbers it prints."""
    cola = plain("model=roberta_base", "task=cola", "method=dylora")
    scored(tmp_path, cola, 0, 0.6, changes={"method.evaluated": 4}, place=tmp_path / "b" / "seed=0")
    assert found(tmp_path, method="dylora").verdict("best").value == "not run"
    scored(tmp_path, cola, 0, 0.61)
    assert found(tmp_path, method="dylora").ours["best"].centre == pytest.approx(61.0)


def test_of_several_ways_the_most_comparable_is_shown(tmp_path, cola):
    five(tmp_path, cola)
    smoke = tmp_path / "smoke"
    for seed in SEEDS:
        changes = {"profile": "smoke", "task.train_rows": 16}
        scored(tmp_path, cola, seed, 0.1, changes=changes, place=smoke / f"seed={seed}")
    cell = found(tmp_path)
    assert cell.verdict("best").value == "reproduced"
    assert [len(other.runs) for other in cell.others] == [5]


def test_other_models_and_sizes_are_listed_without_a_verdict(tmp_path, plain, cola):
    minilm = plain("model=minilm", "task=sst2", "method=fourierft")
    scored(tmp_path, minilm, 0, 0.8)
    scored(tmp_path, cola, 0, 0.6, changes={"method.n": 200}, place=tmp_path / "n" / "seed=0")
    page = registry.build("table2", run_index.collect(tmp_path))
    shown = text.markdown(page)
    assert "minilm, fourierft: SST-2" in shown and "another base model (minilm)" in shown
    rows = list(csv.DictReader(text.separated(page).splitlines()))
    assert len(rows) > 90 and {row["verdict_best"] for row in rows} == {"not run", "not comparable"}


def test_average_needs_every_cell(tmp_path, plain):
    values = {"sst2": 0.942, "mrpc": 0.9, "cola": 0.638, "qnli": 0.922, "rte": 0.791}
    for task, value in (values | {"stsb": 0.908}).items():
        config = plain("model=roberta_base", f"task={task}", "method=fourierft")
        five(tmp_path, config, [value] * 5)
    page = registry.build("table2", run_index.collect(tmp_path))
    line = next(row for row in text.markdown(page).splitlines() if "FourierFT, n=1000" in row)
    assert line.split("|")[-2].strip() == "85.0 / 85.0"
    assert page.verdicts[Verdict.reproduced] == 6
    shutil.rmtree(tmp_path / "roberta_base/rte")
    page = registry.build("table2", run_index.collect(tmp_path))
    line = next(row for row in text.markdown(page).splitlines() if "FourierFT, n=1000" in row)
    assert line.split("|")[-2].strip() == "– / 85.0"


def test_runs_without_a_number_are_no_crash(tmp_path, cola):
    """A diverged run holds null."""
    five(tmp_path, cola, [None] * 5)
    cell = found(tmp_path)
    assert cell.ours["best"] is None and cell.verdict("best").value == "not run"
    assert "FourierFT" in text.markdown(registry.build("table2", run_index.collect(tmp_path)))


@pytest.mark.parametrize(
    "name", [name for name in reference.names() if "how" in reference.load(name)]
)
def test_every_table_is_shown_whole_without_runs(tmp_path, name):
    facts = reference.load(name)
    page = tables.show(name, facts, run_index.collect(tmp_path))
    assert page.verdicts == {Verdict.not_run: len(facts["rows"]) * len(paper_table.columns(facts))}
    shown = text.markdown(page)
    for row in paper_table.rows(facts):
        assert row.label in shown and row.model_label in shown
    for column in paper_table.columns(facts):
        assert column.name in shown


def test_latex_holds_no_bare_special_letter(tmp_path, cola):
    five(tmp_path, cola)
    assert main(["table2", "--outputs", str(tmp_path), "--to", str(tmp_path / "r")]) == 0
    found = (tmp_path / "r/table2.tex").read_text()
    assert found.count(r"\begin{tabular}") == found.count(r"\end{tabular}") >= 2
    body = [line for line in found.splitlines() if line.endswith(r"\\")]
    for line in body:
        for letter in "#_%":
            assert line.count(letter) == line.count("\\" + letter), line


TABLE = {
    "table": 14,
    "title": "The toy",
    "source": "a test",
    "claim": "It works.",
    "run": "make table14",
    "metric": "accuracy",
    "unit": "per cent",
    "order": ["toy"],
    "rows": [{"model": "mlp", "method": "fourierft", "toy": 99.9}],
}


@pytest.fixture
def new_table(tmp_path, monkeypatch):
    """Function that adds a table to a copy of the paper's numbers."""
    folder = shutil.copytree(reference.REFERENCE, tmp_path / "reference")
    monkeypatch.setattr(reference, "REFERENCE", folder)

    def add(name="table14", without=(), **more):
        facts = {key: value for key, value in (TABLE | more).items() if key not in without}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(facts))

    return add


@pytest.mark.parametrize("name", ["table14", "mytable2", "figure14", "ablation"])
def test_a_table_without_protocol_is_shown_and_not_judged(
    name, tmp_path, compose, new_table, capsys
):
    new_table(name)
    for seed in range(2):
        scored(tmp_path, to_plain(compose(["task=toy"])), seed, 0.999)
    assert main([name, "--outputs", str(tmp_path), "--to", str(tmp_path / "report")]) == 0
    shown = capsys.readouterr().out
    assert "The toy" in shown and "so no verdict is given" in shown
    assert "the paper does not say over how many runs" in shown


def test_everything_that_a_table_lacks_is_said_at_once(tmp_path, new_table, capsys):
    new_table(without=["order", "run"], rows=[{"method": "lora"}])
    assert main(["table14", "--outputs", str(tmp_path), "--to", str(tmp_path / "report")]) == 1
    told = capsys.readouterr().err
    assert "run: missing" in told and "row 1: no model" in told and "order: missing" in told


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"rows": "none"}, "rows: must be a list of mappings"),
        ({"without": ["metric"]}, "metric: missing"),
        ({"without": ["rows"]}, "rows: missing"),
    ],
)
def test_incomplete_tables(more, line, new_table):
    new_table(**more)
    with pytest.raises(RecordError, match=line):
        reference.load_table("table14")


def test_a_row_copied_from_an_unknown_source_gets_no_verdict(tmp_path, plain):
    five(tmp_path, plain("model=roberta_base", "task=cola", "method=dylora"))
    told = found(tmp_path, method="dylora").judgements["best"]
    assert told.verdict.value == "not comparable" and cells.UNKNOWN_SOURCE in told.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train.epochs": 1.0}, "epochs 1, paper 100"),
        ({"method.init": "zeros"}, "init zeros, paper"),
        ({"train.precision": "bf16"}, "precision bf16, paper"),
    ],
)
def test_a_verdict_needs_the_papers_recipe(tmp_path, cola, changes, reason):
    five(tmp_path, cola, changes=changes)
    told = found(tmp_path).judgements["best"]
    assert told.verdict.value == "not comparable" and reason in told.reason


def test_unknown_weights_stand_with_the_verdict(tmp_path, cola, monkeypatch):
    five(tmp_path, cola)
    assert UNVERIFIED not in found(tmp_path).judgements["best"].reason
    forget_weights(monkeypatch)
    assert found(tmp_path).judgements["best"].reason.endswith(UNVERIFIED)
    assert UNVERIFIED in registry.build("table2", run_index.collect(tmp_path)).summary


def test_a_row_copied_from_a_paper_of_another_protocol_gets_no_verdict(tmp_path, plain):
    """Table 3's copied rows are the LoRA paper's, at the best epoch."""
    for method, reason in (("full", "copied from a paper that takes the best epoch"), ("lora", "")):
        config = plain("model=gpt2_medium", "task=e2e", f"method={method}")
        for seed in range(3):
            scores = {"bleu": 0.689, "nist": 8.7, "meteor": 0.46, "rouge_l": 0.71, "cider": 2.5}
            place = scored(tmp_path, config, seed, None)
            record = json.loads((place / "metrics.json").read_text())
            last = {"epoch": 5.0, "step": 9, "value": 0.689, "interval": None}
            record["metrics"]["last"] = last | {"scores": {"test": scores}}
            (place / "metrics.json").write_text(json.dumps(record))
        cell = found(tmp_path, "e2e", method, "table3", model="gpt2_medium")
        told = cell.judgements["last"]
        assert cell.ours["last"].centre == pytest.approx(68.9)
        assert reason in told.reason and (reason == "" or told.verdict.value == "not comparable")


@pytest.mark.parametrize("key", ["train.epochs", "train.learning_rate", "method.alpha"])
def test_a_record_that_lacks_part_of_the_recipe_is_not_the_papers(tmp_path, cola, key):
    section, _, name = key.partition(".")
    part = {one: value for one, value in cola[section].items() if one != name}
    five(tmp_path, cola | {section: part})
    told = found(tmp_path).judgements["best"]
    assert f"{name} not recorded, paper" in told.reason
    assert told.verdict.value == "not comparable"


def test_a_cell_of_several_settings_says_why_it_shows_one(tmp_path, cola):
    five(tmp_path, cola)
    changes = {"train.epochs": 1.0}
    for seed in SEEDS:
        place = tmp_path / "short" / f"seed={seed}"
        scored(tmp_path, cola, seed, 0.9, changes=changes, place=place)
    cell = found(tmp_path)
    assert cell.verdict("best").value == "reproduced"
    assert cell.why_shown == "fewest deviations from the paper's recipe"
    shown = text.markdown(registry.build("table2", run_index.collect(tmp_path)))
    assert f"shown for: {cell.why_shown}" in shown and "also:" in shown


def test_a_share_of_rounded_counts_is_judged_by_their_rounding(tmp_path):
    shares = {one["what"]: one for one in reference.load("text")["shares"]}
    for what, ours, agrees in (
        ("GLUE", 100 * 48000 / 786432, True),
        ("E2E NLG, Large", 9.77, False),
        ("Image classification, Base", 100 * 72000 / 589824, False),
    ):
        least, most = text_numbers.share_range(*shares[what]["inputs"])
        assert (least <= ours <= most) is agrees
    page = registry.build("text", run_index.collect(tmp_path))
    told = {row["what"]: row["verdict"] for row in page.rows}
    assert {row["printed"] for row in page.rows} >= {12.4, 41.1, 30.6, 13.7}
    assert set(told.values()) == {"not run"}
    misprints = {row["what"]: row["misprint"] for row in page.rows if row["misprint"]}
    assert misprints.pop("DreamBooth") == text_numbers.COUNTS_DIFFER
    assert set(misprints.values()) == {text_numbers.NOT_FORMULAS} and len(misprints) == 4
    for row in page.rows:
        agrees = abs(row["by_printed_counts"] - row["printed"]) < 0.06
        assert agrees is (row["what"] != "DreamBooth")
    assert "baselines (Section 5); the printed counts give 7.29 to 523" in text.markdown(page)
