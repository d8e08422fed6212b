"""Registry of the report's pages."""

from __future__ import annotations

from experiments.errors import RecordError
from experiments.report.comparison import reference
from experiments.report.comparison.run_index import RunIndex
from experiments.report.pages import (
    all_runs,
    data_sets,
    deviations,
    differences,
    excluded,
    figure3,
    figure6,
    figure7,
    paper_claims,
    pareto,
    sample_answers,
    sample_images,
    score_vs_size,
    settings,
    table1,
    tables,
    text_numbers,
    your_runs,
)
from experiments.report.render.document import Page, title

OF_THE_PAPER = {
    "table1": table1.show,
    "table7": data_sets.show,
    "table8": data_sets.show,
    **{f"table{number}": settings.show for number in (9, 10, 11, 12)},
    "figure1": score_vs_size.show,
    "figure3": figure3.show,
    "figure4": score_vs_size.show,
    "figure5": score_vs_size.show,
    "figure6": figure6.show,
    "figure7": figure7.show,
    "figure8": sample_answers.show,
    "figure9": sample_answers.show,
    "figure10": sample_images.show,
    "text": text_numbers.show,
}
"""Pages with their own layout; all others are tables of scores."""
OWN = {
    your_runs.NAME: your_runs.show,
    "claims": paper_claims.show,
    "pareto": pareto.show,
    "deviations": deviations.show,
    "differences": differences.show,
    "runs": all_runs.show,
    "troubles": excluded.show,
}
"""Pages about all runs, which have no reference file."""
TITLES = {
    your_runs.NAME: "Your runs",
    "claims": "Claims",
    "pareto": "Cost and score",
    "deviations": "Deviations",
    "differences": "Differences",
    "runs": "All runs",
    "troubles": "Left out",
}
"""Titles in the menu."""
LAST = "troubles"
"""Page that is built last: the others may find more unreadable files."""


def names() -> list[str]:
    """Return every page: what was run, the paper's, those about both."""
    first, *others = OWN
    return [first, *reference.names(), *others]


def take_next(waiting: list[str]) -> str:
    """Remove the page to be built next from the names that wait, and return it."""
    name = min(waiting, key=lambda name: name == LAST)
    waiting.remove(name)
    return name


def menu() -> list[tuple[str, str]]:
    """Return name and title of every page whose reference can be read, without building any."""
    found = []
    for name in reference.names():
        try:
            found.append((name, title(reference.load(name))))
        except RecordError:
            continue  # said where the page is built
    first, *others = TITLES.items()
    return [first, *found, *others]


def build(name: str, index: RunIndex) -> Page:
    """Build a page.

    Raises:
        RecordError: the paper's numbers cannot be read.
    """
    if name in OWN:
        return OWN[name](index)
    if name in OF_THE_PAPER:
        return OF_THE_PAPER[name](name, reference.load(name), index)
    return tables.show(name, reference.load_table(name), index)
