"""What there is to judge: every run and benchmark, and the judgements each of them needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import DataError
from experiments.files import is_aside
from experiments.judge.prompts import Prompts, digest
from experiments.judge.questions import FASTCHAT, Questions, ranges
from experiments.results import generations
from experiments.results.fastchat import BENCHMARKS, first_choice, read_rows

JUDGEMENTS = "judgements"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One judgement to be had: one turn of one answer, once."""

    question: int
    category: str
    turn: int
    repeat: int
    """1 to the number of repeats."""
    prompt: dict[str, str]
    """Name and hash."""
    messages: list[dict[str, str]]
    answer: str
    """Hash of the answers shown to the judge."""

    def request(self, model: str, temperature: float | None) -> str:
        """Hash of all that may move the grade: what is sent, to which model, how it samples."""
        return digest([self.messages, model, temperature])


@dataclass(frozen=True, kw_only=True)
class Case:
    """The answers of one run to one benchmark."""

    run: Path
    questions: Questions
    models: list[str]
    """Names that the answers carry."""
    items: list[Item]
    unanswered: list[int]
    """Questions left out because they have no answer (--partial)."""

    @property
    def benchmark(self) -> str:
        """`mt_bench` or `vicuna`."""
        return self.questions.benchmark

    @property
    def folder(self) -> Path:
        """Where its judgements are kept."""
        return self.run / JUDGEMENTS / self.benchmark

    @property
    def answers_hash(self) -> str:
        """Of all answers that are graded."""
        return digest(
            [[one.question, one.turn, one.answer] for one in self.items if one.repeat == 1]
        )


def find_runs(outputs: Path, benchmarks: Iterable[str]) -> list[Path]:
    """Every folder below with answers; runs that were moved aside are left out."""
    found = {
        path.parent.parent
        for benchmark in benchmarks
        for path in outputs.rglob(f"{generations.FOLDER}/{benchmark}.jsonl")
    }
    return sorted(run for run in found if not is_aside(run, outputs))


def benchmarks_of(run: Path, wanted: Iterable[str] = BENCHMARKS) -> list[str]:
    """Benchmarks that a run has answers to."""
    return [benchmark for benchmark in wanted if generations.path_of(run, benchmark).is_file()]


def collect(
    runs: Iterable[Path],
    questions: Mapping[str, Questions],
    prompts: Prompts,
    *,
    repeats: int = 1,
    partial: bool = False,
) -> list[Case]:
    """Reads the answers of all runs and lays out the judgements.

    Args:
        runs: run folders.
        questions: of each benchmark to be judged.
        prompts: what the judge is told.
        repeats: judgements of every turn.
        partial: accept unanswered questions and missing reference answers.

    Raises:
        DataError: questions without answers, answers without questions, missing reference answers
            and damaged lines, of all runs at once.
    """
    problems: list[str] = []
    for known in questions.values():
        if known.without_reference and not partial:
            problems.append(
                f"{known.benchmark} ({known.source}): no reference answer to "
                f"{ranges(known.without_reference)} ({FASTCHAT} has all; --partial: grade without)"
            )
    cases = [
        _case(run, questions[benchmark], prompts, repeats, partial, problems)
        for run in runs
        for benchmark in benchmarks_of(run, questions)
    ]
    if problems:
        raise DataError("nothing was sent: answers and questions do not fit together", problems)
    return cases


def _case(
    run: Path,
    questions: Questions,
    prompts: Prompts,
    repeats: int,
    partial: bool,
    problems: list[str],
) -> Case:
    path = generations.path_of(run, questions.benchmark)
    rows = {row["question_id"]: row for row in read_rows(path, problems)}
    unknown, short, items = rows.keys() - questions.by_id, [], []
    unanswered = [one for one in questions.by_id if one not in rows]
    for question in questions.by_id.values():
        if question.id not in rows:
            continue
        answers = first_choice(rows[question.id]) or []
        if len(answers) != len(question.turns):
            short.append(question.id)
            continue
        for turn in range(1, len(question.turns) + 1):
            references = None if question.reference is None else question.reference[:turn]
            prompt, messages = prompts.messages(question.turns[:turn], answers[:turn], references)
            items += [
                Item(
                    question=question.id,
                    category=question.category,
                    turn=turn,
                    repeat=repeat,
                    prompt={"name": prompt.name, "hash": prompt.hash},
                    messages=messages,
                    answer=digest(answers[:turn]),
                )
                for repeat in range(1, repeats + 1)
            ]
    if unknown:
        problems.append(f"{path}: answers to {ranges(unknown)}, which {questions.source} lacks")
    if short:
        problems.append(f"{path}: not one answer for each turn of {ranges(short)}")
    if unanswered and (not partial or not rows):
        problems.append(f"{path}: no answers to {ranges(unanswered)} (--partial: judge the others)")
    return Case(
        run=run,
        questions=questions,
        models=sorted({str(row.get("model_id")) for row in rows.values()}),
        # All first judgements before any second one: an interrupted run has a whole repeat.
        items=sorted(items, key=lambda item: item.repeat),
        unanswered=unanswered,
    )
