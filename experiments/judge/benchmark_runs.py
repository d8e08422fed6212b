"""Answers of runs to the benchmarks, with the judgements they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import DataError
from experiments.files import is_moved_aside
from experiments.judge.prompts import Prompts, hash_json
from experiments.judge.questions import FASTCHAT, Question, Questions, format_ranges
from experiments.results import generations
from experiments.results.fastchat import BENCHMARKS, get_first_choice, read_rows

JUDGEMENTS = "judgements"


@dataclass(frozen=True, kw_only=True)
class TurnJudgement:
    """One grade to ask for: one turn of one answer."""

    question: int
    category: str
    turn: int
    repeat: int
    """From 1 to the number of repeats."""
    prompt: dict[str, str]
    """Name and hash."""
    messages: list[dict[str, str]]
    answer: str
    """Hash of the answers shown to the judge."""

    def hash_request(self, model: str, temperature: float | None) -> str:
        """Return the hash of everything that may change the grade: messages, model, temperature."""
        return hash_json([self.messages, model, temperature])


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """Answers of one run to one benchmark."""

    run_dir: Path
    questions: Questions
    models: list[str]
    """Model names found in the answers."""
    judgements: list[TurnJudgement]
    unanswered: list[int]
    """Questions left out because they have no answer (--partial)."""

    @property
    def benchmark(self) -> str:
        """`mt_bench` or `vicuna`."""
        return self.questions.benchmark

    @property
    def judgement_dir(self) -> Path:
        """Folder of the judgements."""
        return self.run_dir / JUDGEMENTS / self.benchmark

    @property
    def answers_hash(self) -> str:
        """Hash of all answers that are graded."""
        first = [one for one in self.judgements if one.repeat == 1]
        return hash_json([[one.question, one.turn, one.answer] for one in first])


def find_runs(outputs: Path, benchmarks: Iterable[str]) -> list[Path]:
    """Find every folder with answers below `outputs`, except runs that were moved aside."""
    found = {
        path.parent.parent
        for benchmark in benchmarks
        for path in outputs.rglob(f"{generations.FOLDER}/{benchmark}.jsonl")
    }
    return sorted(run_dir for run_dir in found if not is_moved_aside(run_dir, outputs))


def find_benchmarks(run_dir: Path, candidates: Iterable[str] = BENCHMARKS) -> list[str]:
    """Return the benchmarks that a run has answers to."""
    return [name for name in candidates if generations.get_path(run_dir, name).is_file()]


def read_runs(
    run_dirs: Iterable[Path],
    questions: Mapping[str, Questions],
    prompts: Prompts,
    *,
    repeats: int = 1,
    partial: bool = False,
) -> list[BenchmarkRun]:
    """Read the answers of all runs and list the judgements they need.

    Args:
        run_dirs: folders of the runs.
        questions: questions of each benchmark to judge.
        prompts: judge prompts.
        repeats: judgements of every turn.
        partial: accept unanswered questions and missing reference answers.

    Raises:
        DataError: questions without answers, answers without questions, missing reference answers
            or damaged lines; lists those of all runs.
    """
    problems: list[str] = []
    for benchmark in questions.values():
        missing = benchmark.without_reference
        if missing and not partial:
            problems.append(
                f"{benchmark.benchmark} ({benchmark.source}): no reference answers to "
                f"{format_ranges(missing)} ({FASTCHAT} has all; --partial grades without them)"
            )
    runs = [
        _read_run(run_dir, questions[benchmark], prompts, repeats, partial, problems)
        for run_dir in run_dirs
        for benchmark in find_benchmarks(run_dir, questions)
    ]
    if problems:
        raise DataError("nothing was sent: answers and questions do not match", problems)
    return runs


def list_judgements(
    question: Question, answers: list[str], prompts: Prompts, repeats: int = 1
) -> list[TurnJudgement]:
    """Return the judgements of one question, whose turns have an answer each."""
    found = []
    for turn in range(1, len(question.turns) + 1):
        references = None if question.reference is None else question.reference[:turn]
        prompt, messages = prompts.format_messages(
            question.turns[:turn], answers[:turn], references
        )
        found += [
            TurnJudgement(
                question=question.id,
                category=question.category,
                turn=turn,
                repeat=repeat,
                prompt={"name": prompt.name, "hash": prompt.hash},
                messages=messages,
                answer=hash_json(answers[:turn]),
            )
            for repeat in range(1, repeats + 1)
        ]
    return found


def _read_run(
    run_dir: Path,
    questions: Questions,
    prompts: Prompts,
    repeats: int,
    partial: bool,
    problems: list[str],
) -> BenchmarkRun:
    path = generations.get_path(run_dir, questions.benchmark)
    rows = {row["question_id"]: row for row in read_rows(path, problems)}
    unknown, incomplete, judgements = rows.keys() - questions.by_id, [], []
    unanswered = [number for number in questions.by_id if number not in rows]
    for question in questions.by_id.values():
        if question.id not in rows:
            continue
        answers = get_first_choice(rows[question.id]) or []
        if len(answers) != len(question.turns):
            incomplete.append(question.id)
            continue
        judgements += list_judgements(question, answers, prompts, repeats)
    if unknown:
        problems.append(
            f"{path}: answers to {format_ranges(unknown)}, not among the questions of "
            f"{questions.source}"
        )
    if incomplete:
        problems.append(f"{path}: not one answer per turn of {format_ranges(incomplete)}")
    if unanswered and (not partial or not rows):
        problems.append(
            f"{path}: no answers to {format_ranges(unanswered)} (--partial judges the others)"
        )
    return BenchmarkRun(
        run_dir=run_dir,
        questions=questions,
        models=sorted({str(row.get("model_id")) for row in rows.values()}),
        # First repeats come first, so that an interrupted run has a complete one.
        judgements=sorted(judgements, key=lambda one: one.repeat),
        unanswered=unanswered,
    )
