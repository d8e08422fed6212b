"""The page of deviations: complete, true of conf/, and equal to docs/deviations.md."""

from pathlib import Path

import pytest

from experiments.config.changes import find_plain
from experiments.config.compose import register
from experiments.report.comparison import reference
from experiments.report.pages import deviations
from experiments.report.render import text

DOCS = Path(__file__).resolve().parent.parent / "docs"
ENTRIES = reference.deviations()["entries"]
HELD = [one for entry in ENTRIES for one in entry.get("holds", ())]


def test_the_document_is_the_page():
    """After a change of the YAML: python docs/deviations.py."""
    assert (DOCS / "deviations.md").read_text(encoding="utf-8") == text.markdown(deviations.show())


def test_every_entry_says_all_of_it():
    keys = {
        "subject",
        "section",
        "inconsistency",
        "where",
        "paper",
        "used",
        "why",
        "effect",
        "holds",
    }
    for entry in ENTRIES:
        assert keys - {"inconsistency", "holds"} <= set(entry) <= keys, entry["subject"]
        assert entry["section"] in reference.deviations()["sections"]
    assert {entry.get("inconsistency") for entry in ENTRIES} - {None} == set(range(1, 21))


@pytest.mark.parametrize("held", HELD, ids=lambda one: " ".join(one["of"]))
def test_what_is_used_is_what_runs(held):
    register()
    recipe, values = find_plain(*held["of"])  # cached, so each run is composed once
    found = {key: (values | {"recipe": recipe})[key] for key in held["values"]}
    assert found == held["values"]
