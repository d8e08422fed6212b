"""The static site: every page, every run's record, one style; no server, nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import yaml
from markupsafe import Markup, escape

from experiments.errors import RecordError
from experiments.files import write_atomically
from experiments.metrics.selection import RULES
from experiments.report.comparison.run_index import Evidence, Run, number
from experiments.report.render import document
from experiments.report.render.document import RULE_NAMES, Page
from experiments.results.stored import read_json

HERE = Path(__file__).resolve().parent
ASSETS = ("style.css", "site.js")
STATUS = "status"
OVERVIEW = "overview.json"
"""What the first page lists, for a report that writes some pages anew."""
MARKS = {
    "reproduced": "✓",
    "within-noise": "≈",
    "not-reproduced": "✗",
    "not-comparable": "○",
}
"""Beside the colour, for those who see none."""
FILES = (
    *("metrics.json", "config.yaml", "history.jsonl", "run.log", "predictions", "generations"),
    *("images", "judgements", "adapter"),
)
"""What a run folder may hold, in the order of interest."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A page as the overview lists it."""

    name: str
    title: str
    summary: str
    verdicts: dict[str, int]


def write(
    pages: Sequence[Page],
    evidence: Evidence,
    folder: Path,
    menu: Sequence[tuple[str, str]],
    *,
    whole: bool = True,
) -> Path:
    """Writes the site around the pages' text files and pictures; returns its first page.

    Args:
        pages: what was built.
        evidence: the runs.
        folder: of the site.
        menu: name and title of every page that there may be, in order.
        whole: with False, pages and runs that an earlier report wrote stay beside these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _assets(folder)
    entries = {} if whole else _entries(folder)
    for page in pages:
        entries[page.name] = Entry(page.name, page.title, page.summary, page.verdicts)
    menu = [item for item in menu if item[0] in entries]
    linked = {link for page in pages for link in page.links}
    for page in pages:
        _put(folder / f"{page.name}.html", "page.html", folder, menu, page=page, here=page.name)
    records = folder / "runs"
    records.mkdir(exist_ok=True)
    written = set()
    for run in evidence.runs:
        name = evidence.name(run)
        if not whole and f"run:{name}" not in linked:
            continue
        path = records / f"{slug(name)}.html"
        written.add(path.name)
        parts = _record(run, folder)
        _put(path, "record.html", folder, menu, up="../", name=name, run=run, **parts)
    for stale in records.glob("*.html") if whole else ():
        if stale.name not in written:
            stale.unlink()
    listed = [entries[name] for name, _ in menu]
    text = json.dumps([dataclasses.asdict(entry) for entry in listed], indent=1)
    write_atomically(folder / OVERVIEW, text + "\n")
    index = folder / "index.html"
    _put(index, "index.html", folder, menu, pages=listed, runs=len(evidence.runs), here="index")
    return index


def missing(page: Page, folder: Path, known: Container[str]) -> list[str]:
    """Names of pages that a page links to, and that are neither known nor in the folder."""
    targets = [link.partition(":")[2] for link in page.links if link.startswith("page:")]
    return [
        name
        for name in dict.fromkeys(targets)
        if name not in known and not (folder / f"{name}.html").exists()
    ]


def _entries(folder: Path) -> dict[str, Entry]:
    """What an earlier report listed, as far as it is still there."""
    try:
        found = [Entry(**item) for item in read_json(folder / OVERVIEW)]
        return {
            one.name: one
            for one in found
            if (folder / f"{one.name}.html").exists() and isinstance(one.verdicts, dict)
        }
    except (RecordError, TypeError):
        return {}  # of an earlier version, or none: `all` lists every page


def write_page(page: Page, folder: Path, menu: Sequence[tuple[str, str]]) -> Path:
    """Writes one page of the site, with the menu of those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    menu = [item for item in menu if (folder / f"{item[0]}.html").exists()]
    _assets(folder)
    path = folder / f"{page.name}.html"
    _put(path, "page.html", folder, menu, page=page, here=page.name)
    return path


def slug(name: str) -> str:
    """A run's folder as a file name, short enough for every file system."""
    text = re.sub(r"[^\w.,=+-]+", "--", name)
    if len(text) > 150 or text != name.replace("/", "--"):
        text = f"{text[:140]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return text


def inline(text: str) -> Markup:
    """Prose with `code` and **strong** words; everything else stands for itself."""
    safe = str(escape(text))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe))


def target(link: str, up: str) -> str:
    """Where a link leads, from a page that lies `up` below the site's folder."""
    kind, _, rest = link.partition(":")
    if kind == "run":
        return f"{up}runs/{quote(slug(rest))}.html"
    if kind == "page":
        return f"{up}{rest}.html"
    return link


def _put(
    path: Path, template: str, folder: Path, menu: Sequence[tuple[str, str]], **parts: Any
) -> None:
    parts = {"up": "", "here": None, **parts}
    status = (folder / f"{STATUS}.html").exists() or parts["here"] == STATUS
    text = _environment().get_template(template).render(menu=menu, status=status, **parts)
    write_atomically(path, text)


def _assets(folder: Path) -> None:
    place = folder / "assets"
    place.mkdir(exist_ok=True)
    for name in ASSETS:
        write_atomically(place / name, (HERE / "templates" / name).read_text(encoding="utf-8"))


_ENVIRONMENTS: list[jinja2.Environment] = []


def _environment() -> jinja2.Environment:
    """Templates, compiled once per process."""
    if not _ENVIRONMENTS:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters |= {"inline": inline, "target": target, "kind": _kind}
        environment.filters["pieces"] = document.pieces
        environment.globals |= {"rules": RULES, "rule_names": RULE_NAMES, "marks": MARKS}
        _ENVIRONMENTS.append(environment)
    return _ENVIRONMENTS[0]


def _kind(value: Any) -> str:
    """What a template has before it: a block's or a piece's class."""
    return type(value).__name__.lower()


def _record(run: Run, folder: Path) -> dict[str, Any]:
    """What the page of a run shows."""
    record = run.record
    files = [
        {"name": name, "path": quote(os.path.relpath(run.place / name, folder / "runs"))}
        for name in FILES
        if (run.place / name).exists()
    ]
    scores = []
    for rule in RULES:
        chosen = (record.metrics or {}).get(rule)
        if isinstance(chosen, dict):
            scores.append(
                {
                    "rule": RULE_NAMES[rule],
                    "value": _shown(chosen.get("value")),
                    "interval": " to ".join(map(_shown, chosen.get("interval") or [])),
                    "epoch": _epochs(chosen),
                }
            )
    return {
        "files": files,
        "scores": scores,
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


def _about(run: Run) -> list[tuple[str, str]]:
    said = run.record.run
    primary = (run.record.metrics or {}).get("primary") or {}
    shown = {**said, "metric": primary.get("name"), "split": primary.get("split")}
    shown["weights"] = run.record.environment.get("weights") or "random"
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
