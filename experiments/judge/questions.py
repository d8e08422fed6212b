"""Questions of a benchmark and their reference answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments import hub
from experiments.errors import DataError, HubUnavailable
from experiments.files import list_visible
from experiments.judge.prompts import hash_json
from experiments.results.fastchat import (
    BENCHMARKS,
    are_texts,
    get_first_choice,
    read_questions,
    read_rows,
)

REFERENCE_CATEGORIES = ("math", "reasoning", "coding")
HUB_DATASET, HUB_FILE = "HuggingFaceH4/mt_bench_prompts", "raw/question.jsonl"
FASTCHAT = "fastchat/llm_judge/data of https://github.com/lm-sys/FastChat"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Question of one or two turns."""

    id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] | None
    """One answer per turn; None if none is needed or known."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions of one benchmark."""

    benchmark: str
    source: str
    """Origin of the questions and of the reference answers."""
    by_id: dict[int, Question]

    @property
    def hash(self) -> str:
        """Hash of questions and reference answers."""
        return hash_json([[q.id, q.category, q.turns, q.reference] for q in self.by_id.values()])

    @property
    def without_reference(self) -> list[int]:
        """Questions that need a reference answer and have none."""
        return [
            q.id
            for q in self.by_id.values()
            if q.category in REFERENCE_CATEGORIES and q.reference is None
        ]


def load_questions(benchmark: str, folder: Path | None) -> Questions:
    """Load questions and reference answers.

    Args:
        benchmark: `mt_bench` or `vicuna`.
        folder: folder of question.jsonl and reference_answer/*.jsonl, or of FastChat's `mt_bench/`
            and `vicuna_bench/`; None: MT-Bench on the hub, with reference answers among the
            questions.

    Raises:
        DataError: files are missing or have lines in another format; lists all of them.
        HubUnavailable: the questions are not on the hub or cannot be downloaded.
    """
    path = _download_questions(benchmark) if folder is None else _find_questions(benchmark, folder)
    problems: list[str] = []
    rows = read_questions(path, problems)
    references, author = _read_references(path.parent, problems)
    by_id: dict[int, Question] = {}
    for row in rows:
        number, turns = row["question_id"], row["turns"]
        reference = row.get("reference") if references is None else references.get(number)
        usable = are_texts(reference) and len(reference) >= len(turns) and all(reference)
        needed = row["category"] in REFERENCE_CATEGORIES
        by_id[number] = Question(
            id=number,
            category=row["category"],
            turns=tuple(turns),
            reference=tuple(reference[: len(turns)]) if needed and usable else None,
        )
    if problems:
        raise DataError(f"{benchmark}: invalid questions", problems)
    origin = f"{HUB_DATASET} on the hub" if folder is None else path.parent.name
    return Questions(benchmark=benchmark, source=f"{origin}; references: {author}", by_id=by_id)


def _find_questions(benchmark: str, folder: Path) -> Path:
    nested = folder / BENCHMARKS[benchmark]
    for parent in (nested, folder):
        if (parent / "question.jsonl").is_file():
            return parent / "question.jsonl"
    raise DataError(
        f"{benchmark}: no question.jsonl in {folder} or {nested}",
        [f"set --questions to one of the folders in {FASTCHAT}, or to the folder of both"],
    )


def _download_questions(benchmark: str) -> Path:
    if benchmark != "mt_bench":
        raise DataError(
            f"{benchmark}: its questions are not on the hub",
            [f"download {BENCHMARKS[benchmark]}/ in {FASTCHAT} and set --questions FOLDER"],
        )
    hub.locate(HUB_DATASET, None, probe=HUB_FILE, option="--questions", kind="dataset")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_DATASET, HUB_FILE, repo_type="dataset"))
    except Exception as error:  # the hub's library also raises those of its HTTP client
        raise HubUnavailable(
            f"dataset {HUB_DATASET}: {HUB_FILE} cannot be read ({type(error).__name__})",
            [f"download mt_bench/ in {FASTCHAT} and set --questions FOLDER"],
        ) from error


def _read_references(folder: Path, problems: list[str]) -> tuple[dict[int, list[str]] | None, str]:
    """Return the reference answers by question, None if there are no files, and their author."""
    files = list_visible(folder / "reference_answer", "*.jsonl")
    if not files:
        return None, "the questions' own"
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        problems.append(f"{files[0].parent}: found {names}, expected one file; keep the one to use")
    references = {}
    for row in read_rows(files[0], problems):
        references[row["question_id"]] = turns = get_first_choice(row)
        if turns is None:
            problems.append(f"{files[0]}: question {row['question_id']}: no choices[0].turns")
    return references, files[0].stem


def format_ranges(ids: Iterable[int]) -> str:
    """Format numbers as ranges: 81, 82, 83, 90 as `81-83, 90`."""
    parts: list[list[int]] = []
    for one in sorted(ids):
        if parts and one == parts[-1][-1] + 1:
            parts[-1][1:] = [one]
        else:
            parts.append([one])
    return ", ".join("-".join(map(str, part)) for part in parts)
