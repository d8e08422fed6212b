"""Grades stored answers: `python -m experiments.judge RUN... --base-url URL --model MODEL`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from experiments import console
from experiments.errors import UserError
from experiments.judge import arguments, cases, prompts, questions, scores, table
from experiments.judge.cases import Case
from experiments.judge.endpoint import Endpoint, is_loopback
from experiments.judge.journal import InUse, Journal, Standing
from experiments.judge.pool import Judge, Outcome, Pool


def main(given: list[str] | None = None) -> int:
    """Asks for every judgement that is missing, then prints and writes the scores.

    Returns:
        0 if every run has its score; 1 if judgements are missing, no reply to a run held a grade,
        or something could not be read; 130 if interrupted.
    """
    asked = arguments.parse(given)
    try:
        return _judge(asked)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _judge(asked: argparse.Namespace) -> int:
    words = prompts.load(asked.prompts)
    wanted = {one for run in asked.runs for one in cases.benchmarks_of(run, asked.benchmarks)}
    known = {name: questions.load(name, asked.questions) for name in sorted(wanted)}
    todo = cases.collect(asked.runs, known, words, repeats=asked.repeats, partial=asked.partial)
    judge = Judge(
        model=asked.model,
        temperature=asked.temperature,
        max_tokens=asked.max_tokens,
        limit_field=asked.limit_field,
        attempts=asked.attempts,
    )
    name = file_name(asked.name or asked.model)
    journals = {case.folder: Journal(case.folder / f"{name}.jsonl") for case in todo}
    if asked.dry_run:
        standings = [_standing(case, journals[case.folder], judge) for case in todo]
        print(_shown(todo, standings, judge, asked.repeats))
        print()
        print(table.estimate(standings, judge).show(asked.price_in, asked.price_out))
        return 0
    if arguments.read_key(asked.key_variable) and asked.base_url.startswith("http:"):
        if not is_loopback(asked.base_url):
            print("http: the key travels unencrypted", file=sys.stderr)
    endpoint = Endpoint(
        asked.base_url,
        arguments.read_key(asked.key_variable),
        timeout=asked.timeout,
        retries=asked.retries,
    )
    with contextlib.ExitStack() as stack:
        free = [case for case in todo if _take(stack, journals[case.folder])]
        outcome = _ask(free, journals, judge, endpoint, asked.concurrency)
        standings = [_standing(case, journals[case.folder], judge) for case in free]
        facts = {
            "name": name,
            "asked": judge.model,
            "temperature": judge.temperature,
            "attempts": judge.attempts,
            "repeats": asked.repeats,
        }
        for case, standing in zip(free, standings, strict=True):
            content = scores.record(case, standing, words, facts)
            path = case.folder / f"{name}.json"
            written = scores.settle(path, case, standing, content)
            if not (written or standing.open) and case.items:
                print(f"{path}: has more repeats and stays", file=sys.stderr)
    print(_shown(free, standings, judge, asked.repeats))
    _report(free, standings, outcome)
    if outcome.stopped == "interrupted":
        return 130
    scored = all(one.rated and not one.open for one in standings)
    return 0 if scored and len(free) == len(todo) else 1


def _take(stack: contextlib.ExitStack, journal: Journal) -> bool:
    """Locks a journal; False, and a line that says so, where another process is at work."""
    try:
        stack.enter_context(journal)
    except InUse as error:
        print(error, file=sys.stderr)
        return False
    return True


def _standing(case: Case, journal: Journal, judge: Judge) -> Standing:
    lines, damaged = journal.read()
    if damaged:
        print(f"{journal.path}: {damaged} damaged lines left out", file=sys.stderr)
    return Standing(case.items, lines, judge.model, judge.temperature, judge.attempts)


def _ask(
    free: list[Case],
    journals: dict[Path, Journal],
    judge: Judge,
    endpoint: Endpoint,
    threads: int,
) -> Outcome:
    """Has the missing judgements of all cases, the first repeat of each before any second."""
    from tqdm import tqdm

    todo: list[tuple[Journal, Any, int]] = []
    for case in free:
        journal = journals[case.folder]
        todo += [(journal, *one) for one in _standing(case, journal, judge).open]
    todo.sort(key=lambda one: one[1].repeat)
    if not todo:
        return Outcome()
    print(f"{len(todo)} judgements to be had of {judge.model} at {endpoint.host}", flush=True)
    with tqdm(total=len(todo), unit="judgement", disable=not sys.stderr.isatty()) as bar:
        return Pool(judge, endpoint, bar.update).run(todo, threads)


def _shown(todo: list[Case], standings: list[Standing], judge: Judge, repeats: int) -> str:
    rows = [
        (case, standing, scores.summarise(standing.rated))
        for case, standing in zip(todo, standings, strict=True)
    ]
    return table.show(rows, judge, repeats)


def _report(free: list[Case], standings: list[Standing], outcome: Outcome) -> None:
    """Says on standard error what failed and what is missing."""
    for message, number in outcome.troubles.items():
        print(f"{message}" + (f" ({number} requests)" if number > 1 else ""), file=sys.stderr)
    if outcome.stopped and outcome.stopped not in outcome.troubles:
        print(f"stopped: {outcome.stopped}", file=sys.stderr)
    for case, standing in zip(free, standings, strict=True):
        if standing.failed:
            where = questions.ranges({item.question for item in standing.failed})
            cut = sum(
                line.get("rating") is None and line.get("finish") == "length"
                for line in standing.lines
            )
            hint = f"; {cut} replies were cut off (more --max-tokens and --attempts)" if cut else ""
            print(
                f"{case.run}, {case.benchmark}: {len(standing.failed)} judgements failed, no grade "
                f"in any reply: questions {where}{hint}",
                file=sys.stderr,
            )
        if standing.open:
            where = questions.ranges({item.question for item, _ in standing.open})
            print(
                f"{case.run}, {case.benchmark}: {len(standing.open)} judgements are missing, of "
                f"questions {where}; the same command again asks for them",
                file=sys.stderr,
            )


def file_name(judge: str) -> str:
    """A judge's name as that of a file; with a hash where it had to be changed."""
    name = re.sub(r"[^\w.+-]+", "_", judge).strip("._") or "judge"
    if name == judge and len(name) <= 80:
        return name
    return f"{name[-80:].lstrip('._')}-{hashlib.sha256(judge.encode()).hexdigest()[:8]}"


if __name__ == "__main__":
    console.command("experiments.judge", main)
