"""List of the first page, kept for reports that write only some pages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.files import write_atomically
from experiments.report.comparison import reference
from experiments.report.render.document import Page
from experiments.results.stored import read_json

NAME = "overview.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Page as listed in the overview."""

    name: str
    title: str
    summary: str
    verdicts: dict[str, int]
    """Counts by label."""
    runs: int
    """Runs that it links to."""
    front: str
    """HTML of its section on the first page."""


def make_entry(page: Page, front: str) -> Entry:
    """Return the entry of a page that was built."""
    labels = {one.value: count for one, count in page.verdicts.items()}
    runs = {one for one in page.links if one.startswith("run:")}
    return Entry(page.name, page.title, page.summary, labels, len(runs), front)


def read_entries(folder: Path) -> dict[str, Entry]:
    """Read the list of an earlier report, without pages that are gone."""
    try:
        found = [Entry(**item) for item in read_json(folder / NAME)]
        return {
            one.name: one
            for one in found
            if (folder / f"{one.name}.html").exists()
            and (isinstance(one.verdicts, dict) and isinstance(one.front, str))
        }
    except (RecordError, TypeError):
        return {}  # of an earlier version, or none: `all` lists every page


def write_entries(entries: Iterable[Entry], folder: Path) -> None:
    """Write the list for a later report."""
    text = json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1)
    write_atomically(folder / NAME, text + "\n")


def arrange(listed: Sequence[Entry]) -> dict[str, Any]:
    """Return the variables of the first page: what was run, then the paper's pages, then others."""
    papers = [one for one in listed if one.name in reference.names()]
    return {
        "front": "".join(one.front for one in listed),
        "with_runs": [one for one in papers if one.runs],
        "without_runs": [one for one in papers if not one.runs],
        "others": [one for one in listed if one not in papers and not one.front],
    }
