"""Which page shows what."""

from __future__ import annotations

from experiments.errors import RecordError
from experiments.report.comparison import reference
from experiments.report.comparison.run_index import Evidence
from experiments.report.pages import (
    all_runs,
    differences,
    excluded,
    figure3,
    figure6,
    figure7,
    pareto,
    score_vs_size,
    table1,
    tables,
    text_numbers,
)
from experiments.report.render.document import Page, title

OF_THE_PAPER = {
    "table1": table1.show,
    "figure1": score_vs_size.show,
    "figure3": figure3.show,
    "figure4": score_vs_size.show,
    "figure5": score_vs_size.show,
    "figure6": figure6.show,
    "figure7": figure7.show,
    "text": text_numbers.show,
}
"""Pages with a form of their own; all others are tables of scores."""
OWN = {
    "pareto": pareto.show,
    "differences": differences.show,
    "runs": all_runs.show,
    "troubles": excluded.show,
}
"""Pages about all runs, which have no reference file."""
TITLES = {
    "pareto": "Cost and score",
    "differences": "Differences",
    "runs": "Finished runs",
    "troubles": "Left out",
}
"""What they are called in the menu."""
LAST = "troubles"
"""Built last: the other pages may find more that cannot be read."""


def names() -> list[str]:
    """Every page, the paper's first."""
    return [*reference.names(), *OWN]


def take_next(waiting: list[str]) -> str:
    """Removes the page to be built next from the names that wait, and returns it."""
    name = min(waiting, key=lambda name: name == LAST)
    waiting.remove(name)
    return name


def menu() -> list[tuple[str, str]]:
    """Name and title of every page whose reference can be read, without building any."""
    found = []
    for name in reference.names():
        try:
            found.append((name, title(reference.load(name))))
        except RecordError:
            continue  # said where the page is built
    return [*found, *TITLES.items()]


def build(name: str, evidence: Evidence) -> Page:
    """Makes a page.

    Raises:
        RecordError: the paper's numbers cannot be read.
    """
    if name in OWN:
        return OWN[name](evidence)
    if name in OF_THE_PAPER:
        return OF_THE_PAPER[name](name, reference.load(name), evidence)
    return tables.show(name, reference.load_table(name), evidence)
