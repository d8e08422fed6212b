"""Tables in Weights & Biases: `python -m experiments.report wandb`.

A report with every table (ours beside the paper's) and the runs behind it, and a workspace with a
section per table. Both are built and checked without a network; saving them needs a login.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.files import write_atomically
from experiments.report.comparison import paper_table, reference
from experiments.report.comparison import run_index as records
from experiments.report.comparison.run_index import RunIndex
from experiments.report.pages import registry
from experiments.report.render import text
from experiments.report.render.document import Page, Prose, Table

TITLE = "FourierFT beside the paper"
SUMMARIES = {"best": "best.value", "last": "last.value", "heldout": "heldout.value"}
"""Summary keys of a run's score, by selection rule; written by `tracking`."""
INSTALL = "pip install wandb-workspaces, or this project's extra `report`"


def main(arguments: Sequence[str]) -> int:
    """Build and check report and workspace, and save them unless --offline.

    Returns:
        0, or 1 if they could not be built or saved.
    """
    asked = _parse(arguments)
    try:
        found = records.collect(asked.outputs)
        built = build(found, asked.project, asked.entity or "")
        path = write(built, asked.to)
        print(f"built and checked: {path}")
        if asked.offline:
            return 0
        for url in save(built):
            print(f"saved: {url}")
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(found: RunIndex, project: str, entity: str) -> dict[str, Any]:
    """Build `report` and `workspace` as objects of wandb-workspaces, which validate themselves.

    Raises:
        UserError: the package is missing.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError("wandb: wandb-workspaces is not installed", [INSTALL]) from error
    blocks: list[Any] = [
        reports.TableOfContents(),
        reports.P("Ours beside the paper's; made from the records of finished runs."),
    ]
    sections = []
    for name in reference.names():
        page = registry.build(name, found)
        blocks += [reports.H1(page.title), reports.MarkdownBlock(_table(page))]
        chosen = selection(reference.load(name))
        if chosen:
            runset = reports.Runset(
                entity=entity,
                project=project,
                name=name,
                filters=chosen,
                groupby=["config.model.name", "config.task.name", "config.method.name"],
            )
            blocks.append(reports.PanelGrid(runsets=[runset], panels=_panels(reports, page)))
            sections.append(workspaces.Section(name=page.title, panels=_panels(reports, page)))
    report = reports.Report(project=project, entity=entity, title=TITLE, blocks=blocks)
    workspace = workspaces.Workspace(entity=entity, project=project, name=TITLE, sections=sections)
    return {"report": report, "workspace": workspace}


def selection(facts: dict[str, Any]) -> str:
    """Return the filter for the runs of a table or figure; empty if it trains nothing."""
    if "how" in facts:
        tasks = [column.task for column in paper_table.columns(facts)]
        models = [row.model for row in paper_table.rows(facts)]
    else:
        panels = facts.get("panels", [])
        tasks = [facts.get("task"), *(panel.get("task") for panel in panels)]
        models = [facts.get("model"), *(panel.get("model") for panel in panels)]
    named = {"task.name": tasks, "model.name": models}
    lists = {key: sorted({one for one in found if one}) for key, found in named.items()}
    if not all(lists.values()):
        return ""
    return " and ".join(f"Config('{key}') in {found}" for key, found in lists.items())


def write(built: dict[str, Any], folder: Path) -> Path:
    """Write the content as JSON, which also validates it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        name: thing._to_model().model_dump(mode="json", by_alias=True)
        for name, thing in built.items()
    }
    path = folder / "wandb.json"
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    return path


def save(built: dict[str, Any]) -> list[str]:
    """Save both; return their URLs.

    Raises:
        UserError: no login, or the service cannot be reached.
    """
    import wandb

    try:
        wandb.Api(timeout=20)
        for thing in built.values():
            thing.save()
    except Exception as error:  # wandb, requests and the service raise dozens of kinds
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"wandb: not saved ({cause})",
            ["`wandb login` first, on a machine with a network", "--offline only builds"],
        ) from error
    return [thing.url for thing in built.values()]


def _table(page: Page) -> str:
    """Return summary and first table of a page as Markdown."""
    lines = [page.summary, ""]
    for block in page.blocks:
        if isinstance(block, Table):
            rows = [[text.plain(cell, page.rule) for cell in line.cells] for line in block.lines]
            lines += text.grid(block.columns, rows, block.numbers)
            break
        if isinstance(block, Prose):
            lines += [block.text, ""]
    return "\n".join(lines)


def _panels(reports: Any, page: Page) -> list[Any]:
    """Return panels of scores by selection rule, and of score against trained parameters."""
    bars = [
        reports.BarPlot(
            title=f"{page.title}: {rule}",
            metrics=[reports.SummaryMetric(key)],
            groupby=reports.Config("method.name"),
            groupby_aggfunc="median",
        )
        for rule, key in SUMMARIES.items()
    ]
    against = reports.ScatterPlot(
        title="Score against trained parameters",
        x=reports.Config("parameters.adapter"),
        y=reports.SummaryMetric(SUMMARIES[page.rule]),
        log_x=True,
    )
    return [*bars, against]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report wandb",
        description="Build a wandb report and workspace with every table, and save them.",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, help="folder to write to (OUTPUTS/report)")
    parser.add_argument("--project", default="fourierft", help="wandb project (%(default)s)")
    parser.add_argument("--entity", help="wandb team or user (the login's)")
    parser.add_argument("--offline", action="store_true", help="build and check, save nothing")
    asked = parser.parse_intermixed_args(arguments)
    asked.to = asked.to or asked.outputs / "report"
    return asked
