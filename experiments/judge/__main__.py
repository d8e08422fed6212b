"""Grade stored answers: `python -m experiments.judge RUN... --base-url URL --model MODEL`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import re
import sys
from pathlib import Path

from experiments import console
from experiments.errors import UserError
from experiments.judge import scores, table
from experiments.judge.arguments import parse_arguments, read_key
from experiments.judge.benchmark_runs import BenchmarkRun, TurnJudgement, find_benchmarks, read_runs
from experiments.judge.endpoint import Endpoint, is_loopback
from experiments.judge.journal import InUse, Journal
from experiments.judge.pool import Judge, Outcome, Pool
from experiments.judge.prompts import load_prompts
from experiments.judge.questions import format_ranges, load_questions
from experiments.judge.status import JudgingStatus
from experiments.results import fastchat


def main(arguments: list[str] | None = None) -> int:
    """Request all missing judgements, then print and write the scores.

    Returns:
        0 if every run has its score; 1 if judgements are missing, no reply to a run has a grade, or
        a file cannot be read; 130 if interrupted.
    """
    args = parse_arguments(arguments)
    try:
        return _judge_runs(args)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _judge_runs(args: argparse.Namespace) -> int:
    prompts = load_prompts(args.prompts)
    if prompts.hash != fastchat.PROMPTS:
        print(f"prompts of {prompts.source}: not FastChat's, so Table 4 does not compare these "
              "grades", file=sys.stderr)  # fmt: skip
    names = {name for run_dir in args.runs for name in find_benchmarks(run_dir, args.benchmarks)}
    names = names or set(args.benchmarks)
    questions = {name: load_questions(name, args.questions) for name in sorted(names)}
    runs = read_runs(args.runs, questions, prompts, repeats=args.repeats, partial=args.partial)
    judge = Judge(
        model=args.model,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        limit_field=args.limit_field,
        attempts=args.attempts,
    )
    if not args.runs:  # of a dry run
        print(f"no run below {args.all} has answers; train.py writes them with task.questions=")
        print(f"one run would need, with answers of {table.ANSWER_TOKENS} tokens:")
        estimate = table.estimate_run(questions.values(), prompts, judge, args.repeats)
        print(estimate.format(args.price_in, args.price_out))
        return 0
    name = make_file_name(args.name or args.model)
    journals = {run.judgement_dir: Journal(run.judgement_dir / f"{name}.jsonl") for run in runs}
    if args.dry_run:
        statuses = [_read_status(run, journals[run.judgement_dir], judge) for run in runs]
        print(_format_scores(runs, statuses, judge, args.repeats))
        print()
        print(table.estimate_requests(statuses, judge).format(args.price_in, args.price_out))
        return 0
    key = read_key(args.key_variable)
    if key and args.base_url.startswith("http:") and not is_loopback(args.base_url):
        print("--base-url: http: sends the key unencrypted", file=sys.stderr)
    endpoint = Endpoint(args.base_url, key, timeout=args.timeout, retries=args.retries)
    with contextlib.ExitStack() as stack:
        locked = [run for run in runs if _lock_journal(stack, journals[run.judgement_dir])]
        outcome = _request_judgements(locked, journals, judge, endpoint, args.concurrency)
        statuses = [_read_status(run, journals[run.judgement_dir], judge) for run in locked]
        facts = {
            "name": name,
            "asked": judge.model,
            "temperature": judge.temperature,
            "attempts": judge.attempts,
            "repeats": args.repeats,
        }
        for run, status in zip(locked, statuses, strict=True):
            result = scores.build_result(run, status, prompts, facts)
            path = run.judgement_dir / f"{name}.json"
            written = scores.write_result(path, run, status, result)
            if not (written or status.pending) and run.judgements:
                print(f"{path}: not replaced, since it has more repeats", file=sys.stderr)
    print(_format_scores(locked, statuses, judge, args.repeats))
    _print_failures(locked, statuses, outcome)
    if outcome.stop_reason == "interrupted":
        return 130
    complete = all(status.rated and not status.pending for status in statuses)
    return 0 if complete and len(locked) == len(runs) else 1


def _lock_journal(stack: contextlib.ExitStack, journal: Journal) -> bool:
    """Lock a journal; print a message and return False if another process holds it."""
    try:
        stack.enter_context(journal)
    except InUse as error:
        print(error, file=sys.stderr)
        return False
    return True


def _read_status(run: BenchmarkRun, journal: Journal, judge: Judge) -> JudgingStatus:
    entries, damaged = journal.read()
    if damaged:
        print(f"{journal.path}: {damaged} damaged lines ignored", file=sys.stderr)
    return JudgingStatus(run.judgements, entries, judge.model, judge.temperature, judge.attempts)


def _request_judgements(
    runs: list[BenchmarkRun],
    journals: dict[Path, Journal],
    judge: Judge,
    endpoint: Endpoint,
    threads: int,
) -> Outcome:
    """Request the missing judgements of all runs, first repeats before second ones."""
    from tqdm import tqdm

    pending: list[tuple[Journal, TurnJudgement, int]] = []
    for run in runs:
        journal = journals[run.judgement_dir]
        pending += [(journal, *one) for one in _read_status(run, journal, judge).pending]
    pending.sort(key=lambda one: one[1].repeat)
    if not pending:
        return Outcome()
    print(f"requesting {len(pending)} judgements from {judge.model} at {endpoint.host}", flush=True)
    with tqdm(total=len(pending), unit="judgement", disable=not sys.stderr.isatty()) as bar:
        return Pool(judge, endpoint, bar.update).run(pending, threads)


def _format_scores(
    runs: list[BenchmarkRun], statuses: list[JudgingStatus], judge: Judge, repeats: int
) -> str:
    rows = [
        (run, status, scores.summarize(status.rated))
        for run, status in zip(runs, statuses, strict=True)
    ]
    return table.format_table(rows, judge, repeats)


def _print_failures(
    runs: list[BenchmarkRun], statuses: list[JudgingStatus], outcome: Outcome
) -> None:
    """Print failed and missing judgements to standard error."""
    for message, number in outcome.errors.items():
        print(f"{message}" + (f" ({number} requests)" if number > 1 else ""), file=sys.stderr)
    if outcome.stop_reason and outcome.stop_reason not in outcome.errors:
        print(f"stopped: {outcome.stop_reason}", file=sys.stderr)
    for run, status in zip(runs, statuses, strict=True):
        if status.failed:
            numbers = format_ranges({judgement.question for judgement in status.failed})
            cut = sum(
                entry.get("rating") is None and entry.get("finish") == "length"
                for entry in status.entries
            )
            hint = (
                f"; {cut} replies were cut off (raise --max-tokens and --attempts)" if cut else ""
            )
            print(
                f"{run.run_dir}, {run.benchmark}: {len(status.failed)} judgements failed, no grade "
                f"in any reply: questions {numbers}{hint}",
                file=sys.stderr,
            )
        if status.pending:
            numbers = format_ranges({judgement.question for judgement, _ in status.pending})
            print(
                f"{run.run_dir}, {run.benchmark}: {len(status.pending)} judgements are missing: "
                f"questions {numbers}; run the same command again to request them",
                file=sys.stderr,
            )


def make_file_name(judge: str) -> str:
    """Turn the name of a judge into a file name, with a hash if characters had to be replaced."""
    name = re.sub(r"[^\w.+-]+", "_", judge).strip("._") or "judge"
    if name == judge and len(name) <= 80:
        return name
    return f"{name[-80:].lstrip('._')}-{hashlib.sha256(judge.encode()).hexdigest()[:8]}"


if __name__ == "__main__":
    console.run_command("experiments.judge", main)
