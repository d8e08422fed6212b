"""Claims of the paper: its own numbers against them, and runs for and against them."""

from pathlib import Path

import pytest
from records import ROWS, scored
from test_report import TABLE1, write_count

from experiments.report.comparison import paper_table, reference, run_index
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import paper_claims, registry
from experiments.report.render import text
from experiments.results.identity import to_plain

DOCS = Path(__file__).resolve().parent.parent / "docs"
LARGE = ("roberta_large", 8)
LEVEL = "FourierFT is level with LoRA on GLUE on average"
MATCHED = "FourierFT with n=3000 matches LoRA on average"
DOGS = "FourierFT is above full fine-tuning on OxfordPets and DTD with ViT-Large"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The page without any run."""
    return registry.build("claims", run_index.collect(tmp_path_factory.mktemp("outputs")))


def line(page, claim):
    [row] = [row for row in page.rows if row["claim"] == claim]
    return row


def test_the_papers_own_numbers(empty):
    """n=3000 matches LoRA: 83.71 against 84.94 in Table 5, a contradiction."""
    told = line(empty, MATCHED)["printed"]
    assert "in 1 of 2 cases" in told and "ViT-Large" in told and "-1.23" in told
    broken = [row["claim"] for row in empty.rows if row["printed_verdict"] == "contradicted"]
    assert broken == [MATCHED]
    assert "8 of 9 shares" in empty.rows[1]["printed"]
    assert "of 4, the printed counts are not the formulas'" in empty.rows[1]["printed"]
    assert "printed ± up to 1.6" in empty.rows[3]["printed"], "CoLA: +0.2 within it"
    [ahead] = [row for row in empty.rows if "3.5 %" in row["claim"]]
    assert "in 2 of 2" in ahead["printed"] and "+2.0 %" in ahead["printed"]


def test_docs_hold_every_claim(empty):
    """After a change of claims or references: python docs/claims.py."""
    page = (DOCS / "claims.md").read_text(encoding="utf-8")
    for row in empty.rows:
        assert row["claim"] in page and row["printed"] in page


def test_claims_without_runs(empty):
    assert "| **no** holds in 1 of 2 cases" in text.markdown(empty)
    assert set(empty.verdicts) == {Verdict.not_run}, "misprints of the paper are no run"
    assert "**doubtful cell**" in text.markdown(empty)
    assert line(empty, DOGS)["untested"] == "4 cells" and line(empty, DOGS)["evidence"] == "–"
    assert "29 claims, 1 of them contradicted by the paper's own numbers" in text.markdown(empty)


def test_claims_of_counts_are_reproduced_as_far_as_they_were_counted(tmp_path, monkeypatch):
    """Five of Table 1's counts are missing, and misprints of the text's shares do not count."""
    for row in TABLE1["rows"]:
        for method in TABLE1["methods"]:
            if row["model"] != "roberta_large":
                write_count(tmp_path, row, method)
    monkeypatch.setattr(paper_claims.table_claims, "read_claims", lambda fill: [])
    monkeypatch.setattr(paper_claims, "OF_FIGURES", ())
    page = registry.build("claims", run_index.collect(tmp_path))
    counts, shares = page.rows
    assert {one["verdict"] for one in (counts, shares)} == {"reproduced, as far as tested"}
    assert "not reproduced" not in shares["evidence"] and "not comparable" in shares["evidence"]
    assert page.summary.endswith("here: 2 reproduced, as far as tested.")

    [large] = [one for one in TABLE1["rows"] if (one["model"], one["lora"]["r"]) == LARGE]
    write_count(tmp_path, large, "fourierft")
    write_count(tmp_path, large, "lora", more=200_000)
    wrong = registry.build("text", run_index.collect(tmp_path)).rows[0]
    assert (wrong["what"], wrong["verdict"]) == ("GLUE", "not reproduced")


def test_a_claim_has_one_wording():
    """The claim on n=50 in the list of claims, in the figure's own line and in the docs."""
    figure4 = reference.load("figure4")
    [claim] = [one for one in figure4["claims"] if one["of"] == ["fourierft", 50]]
    said = claim["says"].partition(" (here")[0]
    validation = (DOCS / "validation.md").read_text(encoding="utf-8")
    assert said in " ".join(figure4["claim"].split()) and said in " ".join(validation.split())
    assert "comparable or even better (MRPC, CoLA, RTE)" in claim["words"]


def test_every_claim_names_rows_columns_and_words():
    for claim in reference.claims():
        table = reference.load_table(claim["page"])
        rows, columns = list(paper_table.rows(table)), paper_table.columns(table)
        assert claim["words"] and claim["place"].split()[0] in ("Section", "Appendix")
        for case in claim["cases"]:
            over = case.get("over", claim.get("over"))
            assert over in ("average", "all", "most") or set(over) <= {one.key for one in columns}
            for end in (case["of"], case["than"]):
                fitting = [
                    row for row in rows
                    if end == "others" or all(row.facts[key] == end[key] for key in end)
                ]  # fmt: skip
                assert len(fitting) == 1 or end == "others"


def runs(root, compose, changes, lead):
    """FourierFT with n=10000 and full fine-tuning on OxfordPets and DTD, three seeds each."""
    for task in ("oxford_pets", "dtd"):
        for method, value in (("fourierft", 0.8 + lead), ("full", 0.8)):
            size = ["method.n=10000"] if method == "fourierft" else []
            choice = ["model=vit_large", f"task={task}", f"method={method}", *size]
            plain = to_plain(compose(choice))
            for seed in range(3):
                noise = 0.001 * seed * (1 if method == "full" else 1.5)
                place = root / f"{task}/{method}/seed={seed}"
                scored(root, plain, seed, value + noise, changes=changes, place=place)
    return line(registry.build("claims", run_index.collect(root)), DOGS)


@pytest.mark.parametrize(
    ("changes", "lead", "verdict", "words"),
    [
        ({}, 0.02, "supported", "holds in 1 of 1 cases"),
        ({}, -0.02, "contradicted", "holds in 0 of 1 cases"),
        ({}, 0.0, "cannot be told", "told from +"),
        ({"profile": "smoke"}, 0.02, "not comparable", "holds in 1 of 1 cases"),
    ],
)
def test_claims_of_tables_by_runs(tmp_path, compose, monkeypatch, changes, lead, verdict, words):
    """The paper gives no recipe of ViT-Large: ours serves, and is named."""
    monkeypatch.setitem(ROWS, "oxford_pets", (3312, 368))
    monkeypatch.setitem(ROWS, "dtd", (4060, 452))
    told = runs(tmp_path, compose, changes, lead)
    assert told["verdict"] == verdict and words in told["evidence"]
    if not changes:
        assert "recipe ours: the paper gives none" in told["untested"]
        assert "weights unverified" in told["untested"]


def test_averages_need_a_seed_that_all_columns_share(tmp_path, compose):
    """Each of Table 2's tasks has one run, of a seed of its own: the page is written."""
    for seed, task in enumerate(("sst2", "mrpc", "cola", "qnli", "rte", "stsb")):
        for method in ("fourierft", "lora"):
            plain = to_plain(compose(["model=roberta_base", f"task={task}", f"method={method}"]))
            scored(tmp_path, plain, seed, 0.8, place=tmp_path / f"{task}/{method}/seed={seed}")
    page = registry.build("claims", run_index.collect(tmp_path))
    assert line(page, LEVEL)["verdict"] in ("not run", "cannot be told")
