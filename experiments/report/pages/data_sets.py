"""Tables 7 and 8: data sets as printed, as they are loaded, and as they were counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from experiments.report.comparison import reference
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.comparison.seed_groups import SPLITS
from experiments.report.comparison.subsets import find_cuts
from experiments.report.comparison.verdict import Verdict
from experiments.report.render.document import (
    Heading,
    Items,
    Line,
    Page,
    Prose,
    Shown,
    Table,
    heading,
    link,
    link_page,
    title,
)

INTRODUCTION = (
    "**As loaded** is what `conf/task/` asks for; sizes of held-out parts follow from the printed "
    "sum by the split's rule. **Counted** are the rows that a finished run read (linked), else "
    "those of our copies of the files. A size is reproduced if the counted one rounds to it."
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Printed size of a data set beside ours."""

    task: str
    name: str
    what: str
    """Split, or `labels` or `classes`."""
    printed: str
    loaded: str
    counted: int | None
    runs: list[Run]
    """That read so many rows; empty where we counted them elsewhere."""
    misprint: str | None = None
    """Text of a printed size whose unit is missing."""

    @property
    def verdict(self) -> Verdict:
        """Verdict on the printed size."""
        if self.counted is None:
            return Verdict.not_run
        same = reference.agrees(*reference.count(self.misprint or self.printed), self.counted)
        return Verdict.reproduced if same else Verdict.not_reproduced


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of a table of data sets."""
    found = list(read_sizes(facts, index))
    counts = Counter(one.verdict for one in found)
    parts = [f"{counts[one]} {one.value}" for one in Verdict if counts[one]]
    summary = f"{len(found)} sizes: {', '.join(parts)}.".replace("not run", "without a run")
    columns = ["Data set", "Size of", "Printed", "As loaded", "Counted", "Verdict"]
    runs = Shown(text="the runs that load them", link=link_page(facts["runs"]))
    return Page(
        name=name,
        title=title(facts),
        blocks=[
            *heading(facts),
            Prose(INTRODUCTION),
            Prose(f"**{summary}**"),
            Table(
                caption=title(facts),
                columns=columns,
                lines=[_line(one, index) for one in found],
                numbers=("Printed", "Counted"),
                heads=2,
            ),
            Heading("Notes"),
            Items([*facts["notes"], runs]),
        ],
        rows=[
            {
                "task": one.task,
                "size": one.what,
                "printed": one.misprint or one.printed,
                "loaded": one.loaded,
                "counted": one.counted,
                "verdict": one.verdict.value,
                "records": " ".join(index.name(run) for run in one.runs),
            }
            for one in found
        ],
        rule="last",
        summary=summary,
        verdicts=counts,
    )


def read_sizes(facts: dict[str, Any], index: RunIndex) -> Iterator[Size]:
    """Yield every size of a table."""
    from experiments.config.help_page import CONF  # late: with all models and tasks

    for task, about in facts["datasets"].items():
        asked = yaml.safe_load((CONF / "task" / f"{task}.yaml").read_text(encoding="utf-8"))
        runs = [run for run in index.select(task=task) if _is_whole(run)]
        for split in SPLITS:
            read = [run for run in runs if _rows(run, split) is not None]
            ours = _rows(read[0], split) if read else (about.get("counted") or {}).get(split)
            yield Size(
                task=task,
                name=about["name"],
                what=split,
                printed=str(about[split]),
                misprint=(about.get("misprint") or {}).get(split),
                loaded=_loaded(split, about, asked),
                counted=ours,
                runs=[run for run in read if _rows(run, split) == ours],
            )
        kind = facts["labels"]
        yield Size(
            task=task,
            name=about["name"],
            what=kind,
            printed=str(about[kind]),
            loaded=f"{kind}={asked[kind]}",
            counted=asked[kind],
            runs=[],
        )


def _is_whole(run: Run) -> bool:
    """Return True if a run read all rows of its data set."""
    return not run.record.run.get("profile") and not find_cuts(run)


def _rows(run: Run, split: str) -> int | None:
    """Return the rows of a split that a run read; MNLI has two of validation."""
    rows = run.record.environment.get("rows")
    if not isinstance(rows, dict):
        return None
    keys = [key for key in rows if key.startswith(f"scored {split}")]
    there = [number(rows.get(key)) for key in (["train"] if split == "train" else keys)]
    return None if not there or None in there else sum(there)


def _loaded(split: str, about: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return where the rows of a split come from, and how many they are by the split's rule."""
    source = asked.get("test_repo") if split == "test" else None
    place = source or asked["repo"]
    if "subset" in asked:
        scored = [name for name in ["train", *asked["splits"]] if name.startswith(split)]
        return f"{' and '.join(scored)} of {place}, {asked['subset']}" if scored else "not loaded"
    shares = {"validation": asked["validation_share"], "test": asked["test_share"]}
    if split in about["given"] and not (split == "train" and any(shares.values())):
        return f"{split} of {place}"
    rest = sum(about[one] for one in SPLITS if shares.get(one) is not None or one == "train")
    for one in ("test", "validation"):
        if shares[one] is not None:
            held = math.ceil(round(shares[one] * rest, 6))
            if one == split:
                return f"{shares[one]:g} of {rest:,} of {place}'s train, held out: {held:,}"
            rest -= held
    return f"{place}'s train without what is held out: {rest:,}"


def _line(one: Size, index: RunIndex) -> Line:
    counted = "–" if one.counted is None else f"{one.counted:,}"
    place = link(index.root, one.runs[0].run_dir) if one.runs else None
    verdict = one.verdict
    told = verdict.value if one.counted is not None else "no run"
    why = f" (misprint: {one.printed} is meant)" if one.misprint else ""
    return Line(
        cells=[
            one.name,
            one.what,
            one.misprint or _grouped(one.printed),
            one.loaded,
            Shown(text=counted, link=place),
            Shown(text=f"**{told}**{why}", tone=verdict.tone),
        ],
        tone=None if one.counted is not None else verdict.tone,
    )


def _grouped(printed: str) -> str:
    return f"{int(printed):,}" if printed.isdigit() else printed
