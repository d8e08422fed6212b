"""Static site: every page, every run's record, one style; no server, no external files."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from experiments.files import write_atomically
from experiments.metrics.selection import RULES
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.render import document, overview
from experiments.report.render.document import RULE_NAMES, Page
from experiments.report.run_page import content, update_section

HERE = Path(__file__).resolve().parent
ASSETS = ("style.css", "site.js")
STATUS = "status"
MARKS = {
    Verdict.reproduced.tone: "✓",
    Verdict.within_noise.tone: "≈",
    Verdict.not_reproduced.tone: "✗",
    Verdict.supported.tone: "✓",
    Verdict.contradicted.tone: "✗",
    Verdict.cannot_be_told.tone: "?",
    Verdict.not_comparable.tone: "○",
}
"""Marks beside the color, for readers who do not see it."""


def write(
    pages: Sequence[Page],
    index: RunIndex,
    folder: Path,
    menu: Sequence[tuple[str, str]],
    *,
    whole: bool = True,
    named: Collection[Run] = (),
) -> Path:
    """Write the site around the pages' text files and pictures; return its first page.

    Args:
        pages: pages that were built.
        index: index of the runs.
        folder: folder of the site.
        menu: name and title of every possible page, in order.
        whole: False keeps the pages and runs of an earlier report.
        named: runs that get a page with their update in any case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _assets(folder)
    entries = {} if whole else overview.read_entries(folder)
    for page in pages:
        entries[page.name] = overview.make_entry(page, _render_front(page))
    menu = [item for item in menu if item[0] in entries]
    linked = {link for page in pages for link in page.links}
    for page in pages:
        _put(folder / f"{page.name}.html", "page.html", folder, menu, page=page, here=page.name)
    _put_runs(index, folder, menu, linked, whole, named)
    listed = [entries[name] for name, _ in menu]
    overview.write_entries(listed, folder)
    first = folder / "index.html"
    parts = overview.arrange(listed)
    _put(first, "index.html", folder, menu, runs=len(index.runs), here="index", **parts)
    return first


def _render_front(page: Page) -> str:
    """Return the HTML of a page's section on the first page; empty without one."""
    block = _environment().get_template("blocks.html").module.block
    return "".join(block(one, "") for one in page.front)


def find_page(folder: Path, name: str) -> Path:
    """Return the file of a run's page, by the run's name in its index."""
    return folder / "runs" / f"{slug(name)}.html"


def missing(page: Page, folder: Path, known: Container[str]) -> list[str]:
    """Return names of linked pages that are neither known nor in the folder."""
    targets = [link.partition(":")[2] for link in page.links if link.startswith("page:")]
    return [
        name
        for name in dict.fromkeys(targets)
        if name not in known and not (folder / f"{name}.html").exists()
    ]


def write_page(page: Page, folder: Path, menu: Sequence[tuple[str, str]]) -> Path:
    """Write one page of the site, with the menu of those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    menu = [item for item in menu if (folder / f"{item[0]}.html").exists()]
    _assets(folder)
    path = folder / f"{page.name}.html"
    _put(path, "page.html", folder, menu, page=page, here=page.name)
    return path


def slug(name: str) -> str:
    """Return a file name for a run's folder, short enough for every file system."""
    text = re.sub(r"[^\w.,=+-]+", "--", name)
    if len(text) > 150 or text != name.replace("/", "--"):
        text = f"{text[:140]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return text


def inline(text: str) -> Markup:
    """Render prose with `code` and **strong** words; everything else is escaped."""
    safe = str(escape(text))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    safe = re.sub(r",(?=[A-Za-z_])", ",<wbr>", safe)  # names of folders are long lists
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe))


def target(link: str, up: str) -> str:
    """Return the URL of a link, from a page that lies `up` below the site's folder."""
    kind, _, rest = link.partition(":")
    if kind == "run":
        return f"{up}runs/{quote(slug(rest))}.html"
    if kind == "page":
        return f"{up}{rest}.html"
    return link


def _put_runs(
    index: RunIndex,
    folder: Path,
    menu: Sequence[tuple[str, str]],
    linked: Container[str],
    whole: bool,
    named: Collection[Run],
) -> None:
    """Write the pages of runs: all, or those that are linked or named; see `write`."""
    records = folder / "runs"
    records.mkdir(exist_ok=True)
    drawn = [*named, *(update_section.find_newest(index) if whole else ())]
    written = set()
    for run in index.runs:
        name = index.name(run)
        if not whole and f"run:{name}" not in linked and run not in named:
            continue
        path = find_page(folder, name)
        written |= {path.name, path.stem}
        parts = content.describe(run, index, path, draw=run in drawn)
        _put(path, "record.html", folder, menu, up="../", name=name, run=run, **parts)
    for stale in records.iterdir() if whole else ():
        if stale.name in written:
            continue
        if stale.suffix == ".html":
            stale.unlink()
        elif (stale / update_section.SECTION).is_file():
            shutil.rmtree(stale)


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
    """Return the templates, compiled once per process."""
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
    """Return the class of a block or piece, for templates."""
    return type(value).__name__.lower()
