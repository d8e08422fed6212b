"""Tables 9 to 12: settings as the paper prints them, as its recipe uses them, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison.run_index import RunIndex
from experiments.report.render.document import (
    Block,
    Heading,
    Items,
    Line,
    Page,
    Prose,
    Shown,
    Table,
    heading,
    link_page,
    title,
)

INTRODUCTION = (
    "Used are the values of `conf/recipe/paper/` (`source=paper`), read when this page is written. "
    "`source=printed` runs the table to the letter."
)
UNEXPLAINED = "no reason is on file"


@dataclass(frozen=True, kw_only=True)
class PrintedSetting:
    """Setting of one model, method and task."""

    block: dict[str, Any]
    task: str
    key: str
    said: bool
    """True if the table has the setting, be it with an empty cell."""
    printed: Any
    used: Any

    @property
    def differs(self) -> bool:
        """True if the table's value is not the one that is used."""
        return self.said and self.printed != self.used

    @property
    def why(self) -> str:
        """Reason for a value that differs, or source of one that is not printed."""
        if not self.said:
            return self.block["unprinted"][self.key]
        reasons = self.block["why"].get(self.key, {})
        return reasons.get(self.task, reasons.get("all", UNEXPLAINED)) if self.differs else ""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of a table of settings."""
    found = list(read_settings(facts))
    differing = [one for one in found if one.differs]
    unprinted = list(_merge([one for one in found if not one.said]))
    summary = (
        f"{sum(one.said for one in found)} printed values, {len(differing)} of them not used as "
        f"printed; {len(unprinted)} settings are not printed."
    )
    blocks: list[Block] = [*heading(facts), Prose(INTRODUCTION), Prose(f"**{summary}**")]
    for block in facts["blocks"]:
        mine = [one for one in found if one.block is block and one.said]
        blocks.append(_form(block, mine, facts["names"]))
    if differing:
        blocks += [Heading("Not used as printed", "differing"), _differing(differing, facts)]
    if unprinted:
        blocks += [Heading("Not printed", "unprinted"), _unprinted(unprinted, facts)]
    runs = Shown(text="the runs that have these settings", link=link_page(facts["runs"]))
    blocks += [Heading("Notes"), Items([*facts["notes"], runs])]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=[
            {
                "model": one.block["model"],
                "method": one.block["method"],
                "task": one.task,
                "setting": one.key,
                "printed": one.printed,
                "used": one.used,
                "why": one.why,
            }
            for one in found
        ],
        rule="last",
        summary=summary,
    )


def read_settings(facts: dict[str, Any]) -> Iterator[PrintedSetting]:
    """Yield every setting of a table, printed ones first, with the recipe's value."""
    from experiments.config.changes import read_recipe  # late: with all models and tasks

    for block in facts["blocks"]:
        tasks, printed = block["tasks"], block["printed"]
        keys = [*printed, *block["unprinted"]]
        used = read_recipe(block["model"], block["method"], tasks, keys)
        for key in keys:
            for place, task in enumerate(tasks):
                value = printed.get(key)
                yield PrintedSetting(
                    block=block,
                    task=task,
                    key=key,
                    said=key in printed,
                    printed=value[place] if isinstance(value, list) else value,
                    used=used[task][key],
                )


def _form(block: dict[str, Any], found: list[PrintedSetting], names: dict[str, str]) -> Table:
    """Return the table in the paper's form: what is used, and beside it what differs in print."""
    tasks = block["tasks"]
    lines = []
    for key in block["printed"]:
        cells = [_cell(one) for one in found if one.key == key]
        lines.append(Line(cells=[names[key], *cells]))
    return Table(
        caption=f"{block['name']}: used, and in brackets what is printed instead",
        columns=["Setting", *tasks],
        lines=lines,
        numbers=tasks,
    )


def _cell(one: PrintedSetting) -> Shown | tuple[Shown, ...]:
    used = Shown(text=_text(one.used))
    if not one.differs:
        return used
    return used, Shown(text=f"({_text(one.printed)})", tone="paper", note=one.why)


def _differing(found: list[PrintedSetting], facts: dict[str, Any]) -> Table:
    return Table(
        caption="Values that are not used as printed",
        columns=["Model", "Task", "Setting", "Printed", "Used", "Why"],
        lines=[
            Line(
                cells=[
                    one.block["name"],
                    task,
                    facts["names"][one.key],
                    _text(one.printed),
                    _text(one.used),
                    one.why,
                ]
            )
            for one, task in _merge(found)
        ],
        numbers=("Printed", "Used"),
        heads=3,
    )


def _unprinted(found: list[tuple[PrintedSetting, str]], facts: dict[str, Any]) -> Table:
    return Table(
        caption="Settings that the table does not have",
        columns=["Model", "Setting", "Used", "From"],
        lines=[
            Line(cells=[one.block["name"], facts["names"][one.key], _text(one.used), one.why])
            for one, _ in found
        ],
        numbers=("Used",),
        heads=2,
    )


def _merge(found: list[PrintedSetting]) -> Iterator[tuple[PrintedSetting, str]]:
    """Yield settings that are equal in all their tasks once, with the names of the tasks."""
    same: dict[tuple[Any, ...], list[PrintedSetting]] = {}
    for one in found:
        key = (id(one.block), one.key, str(one.printed), str(one.used), one.why)
        same.setdefault(key, []).append(one)
    for several in same.values():
        tasks = [one.task for one in several]
        whole = len(tasks) == len(several[0].block["tasks"]) > 1
        yield several[0], "all" if whole else ", ".join(tasks)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
