"""Answers of several runs side by side: `python -m experiments.commands.compare_answers RUN...`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from experiments import console
from experiments.errors import RecordError, UserError
from experiments.files import list_visible, write_atomically
from experiments.results import generations
from experiments.results.fastchat import are_texts, get_first_choice
from experiments.results.record import RECORD, read_record
from experiments.results.stored import read_json

TITLES = {"mt_bench": "MT-Bench", "vicuna": "Vicuna"}

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --mark: #b35;
  --quiet: light-dark(#666, #999); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem .8rem; }
.quiet { color: var(--quiet); font-size: .875rem; }
.scores { overflow-x: auto; } table { border-collapse: collapse; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.turn { border-left: 3px solid var(--line); padding-left: .8rem; margin: 1rem 0 .5rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.answers { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.answer { border: 1px solid var(--line); border-radius: .4rem; background: var(--soft);
  padding: .6rem .8rem; }
.answer b { display: block; font-size: .875rem; overflow-wrap: anywhere; }
.cut { color: var(--mark); font-size: .875rem; }
"""


@dataclass(frozen=True, kw_only=True)
class AnsweredRun:
    """Finished run with its answers and their grades."""

    name: str
    answers: dict[str, dict[Any, dict[str, Any]]]
    """Lines of generations/<benchmark>.jsonl by question, per benchmark."""
    scores: dict[str, dict[str, float]]
    """Average grade by judge, per benchmark."""


def read_run(run_dir: Path) -> AnsweredRun:
    """Read a run folder.

    Raises:
        RecordError: not a finished run, or a run without answers.
    """
    if not (run_dir / RECORD).is_file():
        raise RecordError(f"{run_dir}: no {RECORD}, not a finished run")
    about = read_record(run_dir).run
    name = f"{about['model']}, {about['method']} {about.get('variant') or ''}".rstrip()
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    scores: dict[str, dict[str, float]] = {}
    for benchmark in TITLES:
        lines = _lines(generations.get_path(run_dir, benchmark))
        if lines:
            found[benchmark] = lines
        for path in list_visible(run_dir / "judgements" / benchmark, "*.json"):
            average = _average(path)
            if average is not None:
                scores.setdefault(benchmark, {})[path.stem] = average
    if not found:
        raise RecordError(
            f"{run_dir}: no answers (task.questions=FOLDER in the run's command makes them)"
        )
    return AnsweredRun(name=f"{name}, seed {about.get('seed')}", answers=found, scores=scores)


def _lines(path: Path) -> dict[int, dict[str, Any]]:
    """Read answers by question; damaged lines are left out and listed on standard error."""
    damaged: list[str] = []
    found: dict[int, dict[str, Any]] = {}
    for line in generations.read(path, damaged):
        number, asked = line.get("question_id"), line.get("asked", [""])
        sound = isinstance(number, int) and get_first_choice(line) is not None and are_texts(asked)
        sound = sound and isinstance(line.get("truncated", []), list)
        if sound and isinstance(line.get("category", ""), str):
            found[number] = line
        else:
            damaged.append(f"{path}: damaged, not an answer: question {number}")
    for problem in damaged:
        print(f"{problem}; left out", file=sys.stderr)
    return found


def _average(path: Path) -> float | None:
    try:
        value = read_json(path)["scores"]["average"]
        return None if value is None else float(value)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise RecordError(f"{path}: damaged judgements ({error!r})") from error


def render_page(runs: list[AnsweredRun]) -> str:
    """Return the whole page; text of models and data is escaped, nothing external is loaded."""
    benchmarks = [name for name in TITLES if any(name in run.answers for run in runs)]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Answers side by side</title><style>{STYLE}</style></head><body>",
        "<h1>Answers side by side</h1>",
        *_scores(runs, benchmarks),
        *(line for benchmark in benchmarks for line in _benchmark(runs, benchmark)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _scores(runs: list[AnsweredRun], benchmarks: list[str]) -> list[str]:
    """Return a table of the judges' average grades, or a sentence without any."""
    columns = [
        (benchmark, judge)
        for benchmark in benchmarks
        for judge in sorted({judge for run in runs for judge in run.scores.get(benchmark, {})})
    ]
    if not columns:
        names = "".join(f"<li>{escape(run.name)}</li>" for run in runs)
        return [f"<ul>{names}</ul>", '<p class="quiet">Not judged yet.</p>']
    head = "".join(f"<th>{TITLES[name]}, {escape(judge)}</th>" for name, judge in columns)
    rows = []
    for run in runs:
        grades = (run.scores.get(name, {}).get(judge) for name, judge in columns)
        cells = "".join(
            f'<td class="number">{"-" if grade is None else f"{grade:.2f}"}</td>'
            for grade in grades
        )
        rows.append(f"<tr><td>{escape(run.name)}</td>{cells}</tr>")
    return [f'<div class="scores"><table><tr><th>Run</th>{head}</tr>', *rows, "</table></div>"]


def _benchmark(runs: list[AnsweredRun], benchmark: str) -> list[str]:
    """Return every question of a benchmark with all answers, by category."""
    asked: dict[Any, dict[str, Any]] = {}
    for run in runs:
        asked |= run.answers.get(benchmark, {})
    categories: dict[str, list[Any]] = {}
    for question, line in asked.items():
        categories.setdefault(line.get("category", "all"), []).append(question)
    links = "".join(
        f'<a href="#{benchmark}-{position}">{escape(name)}</a>'
        for position, name in enumerate(categories)
    )
    lines = [f"<h2>{TITLES[benchmark]}</h2>", f"<nav>{links}</nav>"]
    for position, (category, questions) in enumerate(categories.items()):
        lines.append(f'<section id="{benchmark}-{position}">')
        for question in questions:
            lines.append(f"<h3>{escape(category)}, question {escape(str(question))}</h3>")
            for turn, text in enumerate(asked[question].get("asked", [])):
                lines.append(f'<div class="turn text">{escape(text)}</div><div class="answers">')
                lines += [_answer(run, benchmark, question, turn) for run in runs]
                lines.append("</div>")
        lines.append("</section>")
    return lines


def _answer(run: AnsweredRun, benchmark: str, question: Any, turn: int) -> str:
    line = run.answers.get(benchmark, {}).get(question)
    turns = line["choices"][0]["turns"] if line else []
    text = f'<div class="text">{escape(turns[turn])}</div>' if turn < len(turns) else ""
    if not text or not turns[turn]:
        text = '<span class="quiet">no answer</span>'
    cut = (line or {}).get("truncated", [])
    if turn < len(cut) and cut[turn]:
        text += '<span class="cut">The conversation lost its beginning: too long.</span>'
    return f'<div class="answer"><b>{escape(run.name)}</b>{text}</div>'


def main(arguments: list[str] | None = None) -> int:
    """Write the page; return 0 if it was written, 1 if a run cannot be shown."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.commands.compare_answers",
        description="Show the answers of finished runs side by side, as one HTML page.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.html")
    asked = parser.parse_intermixed_args(arguments)
    found, problems = [], []
    for run_dir in asked.runs:
        try:
            found.append(read_run(run_dir))
        except UserError as error:
            problems.append(str(error))
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    try:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        # Models may write lone surrogates, which cannot be encoded.
        whole = render_page(found).encode("utf-8", "backslashreplace").decode("utf-8")
        write_atomically(asked.out, whole)
    except OSError as error:
        print(f"{asked.out}: cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    print(asked.out)
    return 0


if __name__ == "__main__":
    console.run_command("experiments.answers", main)
