"""Last page: everything below the output folder that no table counts."""

from __future__ import annotations

from collections import Counter

from experiments.report.comparison.run_index import RunIndex
from experiments.report.render.document import Block, Items, Line, Page, Prose, Table
from experiments.results.stored import make_printable

KINDS = {
    "damaged": "unreadable, or without a required part of a record; move it away to run it again",
    "foreign": "file of another program or of a newer version",
    "older schema": "written by an earlier version of this project",
    "contradictory": "conflicting records of one run; none of them counts",
    "duplicate": "copy of a run that counts in another folder",
    "failed": "run that ended with an error; the same command runs it again",
}


def show(index: RunIndex) -> Page:
    """Build the page of excluded records by kind."""
    found = sorted(index.excluded, key=lambda one: (list(KINDS).index(one.kind), one.path))
    counts = Counter(one.kind for one in found)
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing"
    blocks: list[Block] = [
        Prose(
            f"**Left out: {summary}.** Runs that were moved aside by a repetition are not listed."
        )
    ]
    if found:
        blocks.append(
            Table(
                caption="Files that are not counted",
                columns=("Kind", "File", "Why"),
                lines=[
                    Line(cells=[one.kind, f"`{make_printable(one.path)}`", one.reason])
                    for one in found
                ],
                filtered=len(found) > 10,
            )
        )
        blocks.append(Items([f"**{kind}**: {KINDS[kind]}" for kind in KINDS if counts[kind]]))
    return Page(
        name="troubles",
        title="Records that do not count",
        blocks=blocks,
        rows=[
            {"kind": one.kind, "path": make_printable(one.path), "reason": one.reason}
            for one in found
        ]
        or [{"kind": None}],
        summary=f"Left out: {summary}.",
    )
