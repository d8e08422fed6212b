"""Status board: `python -m experiments.report status [experiment=NAME] [key=value ...]`.

Overrides without an experiment are a sweep of their own, as they are for train.py.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.config import paths, sweep
from experiments.errors import UserError
from experiments.report import costs
from experiments.report.comparison.verdict import Verdict
from experiments.report.costs import StatusRow
from experiments.report.forecast import forecast_seconds
from experiments.report.pages import registry
from experiments.report.render import site, text
from experiments.report.render.document import (
    Block,
    Heading,
    Items,
    Line,
    Page,
    Prose,
    Shown,
    Table,
)
from experiments.report.run_state import RunState, State, look, look_at_trials
from experiments.results.identity import get_run_dir

OUTPUTS = Path("outputs")
OWN = "your sweep"
"""Name of a sweep that belongs to no experiment."""


def main(arguments: Sequence[str]) -> int:
    """Print the board and write it as a page of the site.

    Returns:
        0, or 1 if an experiment could not be read.
    """
    asked = _parse(arguments)
    named = [one.partition("=")[2] for one in asked.overrides if one.startswith("experiment=")]
    given = [one for one in asked.overrides if not one.startswith(("experiment=", "hydra"))]
    failures, boards = 0, {}
    names = list(itertools.chain.from_iterable(map(_called, named)))
    for name in names or ([OWN] if given else sweep.list_experiments()):
        print(f"looking at {name}", file=sys.stderr, flush=True)  # composing takes a moment
        try:
            boards[name] = list(rows(name, paths.quote_paths(given), asked.outputs))
        except UserError as error:
            print(error, file=sys.stderr)
            failures += 1
    if not boards:
        return 1
    page = board(boards, asked.outputs, given)
    print(text.markdown(page))
    try:
        print(f"written: {site.write_page(page, asked.to, registry.menu())}")
    except OSError as error:
        print(f"{asked.to}: the board cannot be written ({error})", file=sys.stderr)
        failures += 1
    return 1 if failures else 0


def rows(name: str, given: Sequence[str], outputs: Path) -> Iterator[StatusRow]:
    """Yield every cell of an experiment, or of `OWN`, with the states of its runs in `outputs`."""
    for cell in sweep.compose_cells(None if name == OWN else name, given):
        label = " ".join(cell.overrides) or name
        if cell.config is None:
            yield StatusRow(name=label, key=("", "", ""), runs={}, problem=cell.problem)
            continue
        config, runs = cell.config, {}
        config.output = str(outputs)
        space, trials = sweep.read_search(config.experiment)
        for seed in cell.seeds:
            config.seed = seed
            if trials > 1:
                runs[seed] = look_at_trials(config, space, trials)
            else:
                runs[seed] = look(get_run_dir(config), config)
        yield StatusRow(
            name=label,
            key=(config.model.name, config.task.name, config.method.name),
            runs=runs,
            forecast=forecast_seconds(config),
            trials=trials,
        )


def _called(name: str) -> list[str]:
    """Return the experiments of a table or figure that has several; else the name itself."""
    if name in sweep.list_experiments():
        return [name]
    return [one for one in sweep.list_experiments() if one.startswith(f"{name}_")] or [name]


def board(boards: dict[str, list[StatusRow]], outputs: Path, given: Sequence[str] = ()) -> Page:
    """Return a page of all experiments.

    Args:
        boards: cells of each experiment.
        outputs: folder of the runs.
        given: overrides that narrow their sweeps, for the command that continues them.
    """
    blocks: list[Block] = [costs.introduce(), costs.tabulate(boards)]
    everything = [row for found in boards.values() for row in found]
    total = _told(everything)
    if len(boards) > 1:
        blocks.append(Prose(f"**All: {total}**"))
    for name, found in boards.items():
        blocks += [Heading(name, name), Prose(f"**{_told(found)}**"), _table(name, found, outputs)]
        notes = list(_notes(found, outputs))
        blocks += [Items(notes)] if notes else []
        if any(one.state is not State.done for row in found for one in row.runs.values()):
            start = ["-m"] if name == OWN else [f"experiment={name}"]
            words = [*start, *given, *_elsewhere(outputs)]
            searched = any(row.trials > 1 for row in found)
            # A space is named after its figure.
            search = ["-m", "experiments.search", f"search={name.split('_')[0]}"]
            command = shlex.join([*(search if searched else ["train.py"]), *words])
            blocks.append(Prose(f"To continue: `.venv/bin/python {command}`"))
    counts = Counter(one.state for row in everything for one in row.runs.values())
    return Page(name=site.STATUS, title="Status", blocks=blocks, summary=total, verdicts=counts)


def _elsewhere(outputs: Path) -> list[str]:
    return [] if outputs == OUTPUTS else [f"output={outputs}"]


def _told(found: Sequence[StatusRow]) -> str:
    """Summarise: 12 of 20 runs done, 1 running, 7 missing; about 2 h left on one worker."""
    runs = [one for row in found for one in row.runs.values()]
    counts = Counter(one.state for one in runs)
    parts = [f"{counts[State.done]} of {len(runs)} runs done"]
    parts += [
        f"{counts[state]} {state.value}"
        for state in (State.running, State.failed, State.missing)
        if counts[state]
    ]
    problems = sum(bool(row.problem) for row in found)
    parts += [f"{problems} cells that cannot be composed"] if problems else []
    if counts[State.done] == len(runs) and not problems:
        return f"{', '.join(parts)}."
    return f"{', '.join(parts)}; {costs.format_left(found, max(1, counts[State.running]))}."


def _table(name: str, found: Sequence[StatusRow], outputs: Path) -> Table:
    seeds = list(dict.fromkeys(seed for row in found for seed in row.runs))
    lines = []
    for row in found:
        shown: list[Shown] = []
        for seed in seeds:
            one = row.runs.get(seed)
            if one is None:
                shown.append(Shown(text="" if not row.problem else "–"))
                continue
            link = _link(one, outputs) if one.state is State.done else None
            tone = one.state.value
            shown.append(Shown(text=tone, tone=tone, note=one.note or None, link=link))
        tone = Verdict.not_run.tone if row.problem else None
        lines.append(Line(cells=[row.name, *shown], tone=tone))
    return Table(caption=f"Runs of {name} by seed", columns=["Cell", *map(str, seeds)], lines=lines)


def _link(one: RunState, outputs: Path) -> str | None:
    try:
        return f"run:{one.run_dir.relative_to(outputs).as_posix()}"
    except ValueError:
        return None


def _notes(found: Sequence[StatusRow], outputs: Path) -> Iterator[str]:
    """Yield notes on runs that are running, stopped or failed, and on invalid cells."""
    for row in found:
        if row.problem:
            yield f"{row.name}: cannot be composed: {row.problem}"
        for seed, one in row.runs.items():
            if one.note:
                yield f"{row.name} seed={seed}: {one.state.value}, {one.note}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report status",
        description="Show which runs of an experiment are done; runs nothing.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="experiment=NAME and overrides that narrow its sweep; overrides alone are a sweep of "
        "their own; nothing: every experiment",
    )
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, help="folder of the runs")
    parser.add_argument("--to", type=Path, help="folder to write to (OUTPUTS/report)")
    asked = parser.parse_intermixed_args(arguments)
    wrong = [one for one in asked.overrides if "=" not in one]
    if wrong:
        parser.error(f"{', '.join(wrong)}: not an override, write key=value")
    asked.to = asked.to or asked.outputs / "report"
    return asked
