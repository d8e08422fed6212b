"""What the page of a run shows, as its template's variables."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from experiments.errors import UserError
from experiments.metrics.selection import RULES
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.render.document import RULE_NAMES
from experiments.report.run_page import curves, recipe_difference, update_section, updates
from experiments.results.stored import make_printable

FILES = (
    *("metrics.json", "config.yaml", "history.jsonl", "run.log", "predictions", "generations"),
    *("images", "judgements", "adapter"),
)
"""Files of a run folder, in the order of interest."""


def describe(run: Run, index: RunIndex, page: Path, draw: bool = False) -> dict[str, Any]:
    """Return the template variables of a run's page.

    Args:
        run: the run.
        index: its index.
        page: file of the page; images lie in a folder beside it, of its name.
        draw: draw its update, where that was not done before.
    """
    record = run.record
    files = [
        {"name": name, "path": quote(os.path.relpath(run.run_dir / name, page.parent))}
        for name in FILES
        if (run.run_dir / name).exists()
    ]
    scores = []
    for rule in RULES:
        chosen = (record.metrics or {}).get(rule)
        if isinstance(chosen, dict):
            scores.append(
                {
                    "rule": RULE_NAMES[rule],
                    "value": _rounded(chosen.get("value")),
                    "interval": " to ".join(map(_rounded, chosen.get("interval") or [])),
                    "epoch": _epochs(chosen),
                }
            )
    return {
        "files": files,
        "scores": scores,
        "charts": curves.draw_charts(run, index),
        "difference": recipe_difference.compare(run),
        **_describe_update(run, index, page, draw),
        "about": _about(run),
        "tables": [
            ("Parameters", _flat(record.parameters)),
            ("Time", _flat(record.time)),
            ("Memory, bytes", _flat(record.memory)),
            ("Environment", _flat(record.environment)),
        ],
        "metrics": json.dumps(record.metrics, indent=1) if record.metrics else None,
        "config": yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
        "warnings": list((record.preflight or {}).get("warnings") or []),
    }


def _describe_update(run: Run, index: RunIndex, page: Path, draw: bool) -> dict[str, Any]:
    """Return the section on the update; a reason or the command that draws it in its place."""
    folder = page.with_suffix("")
    found: dict[str, Any] = {
        "update": None,
        "norms": [],
        "problem": None,
        "undrawn": None,
        "images": "",
    }
    try:
        make = update_section.make_section if draw else update_section.read_section
        found["update"] = make(run, folder)
    except (UserError, OSError) as error:
        found["problem"] = make_printable(error)
    if found["update"] is not None:
        found["norms"] = update_section.draw_norms(found["update"]["norms"])
        found["images"] = quote(folder.name)
    elif not draw and updates.read_kind(run):
        found["undrawn"] = _format_command(run, index, page.parent.parent)
    return found


def _format_command(run: Run, index: RunIndex, to: Path) -> str:
    """Return the command that draws the update of a run on its page in a report."""
    words = ["python", "-m", "experiments.report", "run", str(run.run_dir)]
    words += ["--outputs", str(index.root)] if index.root != Path("outputs") else []
    words += ["--to", str(to)] if to != index.root / "report" else []
    return shlex.join(words)


def _about(run: Run) -> list[tuple[str, str]]:
    said = run.record.run
    primary = (run.record.metrics or {}).get("primary") or {}
    shown = {**said, "metric": primary.get("name"), "split": primary.get("split")}
    shown["weights"] = run.record.environment.get("weights") or "random"
    shown["origin"] = (run.record.config.get("model") or {}).get("origin")
    return [(key, str(value)) for key, value in shown.items() if value not in (None, "")]


def _epochs(chosen: dict[str, Any]) -> str:
    epochs = chosen.get("epochs") or [chosen.get("epoch")]
    return ", ".join(f"{epoch:g}" for epoch in epochs if number(epoch) is not None)


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    from experiments.results.identity import flatten

    return [(key, _shown(value)) for key, value in flatten(values).items()]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if number(value) is not None else str(value)


def _rounded(score: Any) -> str:
    return f"{score:.4g}" if isinstance(score, float) else _shown(score)
