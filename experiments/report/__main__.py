"""Show tables and figures beside the paper's: `python -m experiments.report [table1 figure7]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments import console
from experiments.errors import UserError
from experiments.files import write_atomically
from experiments.report.comparison import run_index
from experiments.report.pages import registry
from experiments.report.plots import style
from experiments.report.render import site, text
from experiments.report.render.document import Page
from experiments.report.run_page import command

SHOWN = 5
"""Records that do not count and are named in the terminal; the last page has all of them."""


def main(arguments: list[str] | None = None) -> int:
    """Write what was asked for; print pages that are named, else a line about every page.

    Returns:
        0 if all of it was shown (with or without runs), 1 if something could not be, 2 for an
        unknown name.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["status"]:
        from experiments.report import status  # composes configurations, which takes a moment

        return status.main(words[1:])
    if words[:1] == ["wandb"]:
        from experiments.report import wandb_report  # its library takes a moment too

        return wandb_report.main(words[1:])
    if words[:1] == ["run"]:
        return command.main(words[1:])
    known = registry.names()
    asked = _parse(words, known)
    unknown = [name for name in asked.names if name not in [*known, "all"]]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    if not asked.outputs.is_dir():
        print(f"{asked.outputs}: no such folder, so nothing in it was run", file=sys.stderr)
    found = run_index.collect(asked.outputs)
    failures, built = 0, []
    whole = not asked.names or "all" in asked.names
    shown = known if whole else [name for name in known if name in asked.names]
    waiting = list(shown)
    while waiting:
        name = registry.take_next(waiting)
        try:
            page = registry.build(name, found)
            written = write(page, asked.to)
            built.append(page)
            waiting += site.missing(page, asked.to, {*waiting, *(page.name for page in built)})
            if name in asked.names:
                print(text.markdown(page))
                print(f"written: {', '.join(map(str, written))}\n", flush=True)
            elif whole:
                print(f"{name:<{max(map(len, known))}}  {page.summary}", flush=True)
        except (UserError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failures += 1
    try:
        index = site.write(built, found, asked.to, registry.menu(), whole=whole)
        print(f"site: {index}")
    except OSError as error:
        print(f"{asked.to}: the site cannot be written ({error})", file=sys.stderr)
        failures += 1
    for record in found.excluded[:SHOWN]:
        print(f"left out: {record}", file=sys.stderr)
    if len(found.excluded) > SHOWN:
        named = any(page.name == "troubles" for page in built)
        where = f"see {asked.to}/troubles.md" if named else "named by the page `troubles`"
        print(f"left out: {len(found.excluded) - SHOWN} more, {where}", file=sys.stderr)
    return 1 if failures else 0


def write(page: Page, folder: Path) -> list[Path]:
    """Write <name>.md, .csv, .tex and the page's pictures; return what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, form in (("md", text.markdown), ("csv", text.separated), ("tex", text.latex)):
        paths.append(folder / f"{page.name}.{suffix}")
        write_atomically(paths[-1], form(page))
    for picture in page.pictures:
        paths += style.save(picture.draw(), folder, picture.name)
    return paths


def _parse(arguments: list[str], known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Set recorded runs beside the paper's tables and figures; nothing is run.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(known)}; none, or all: all of them; or `run RUN`, `status`, `wandb` "
        "(--help each)",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, help="folder to write to (OUTPUTS/report)")
    asked = parser.parse_intermixed_args(arguments)
    asked.to = asked.to or asked.outputs / "report"
    return asked


if __name__ == "__main__":
    console.run_command("experiments.report", main)
