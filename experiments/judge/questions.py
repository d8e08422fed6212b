"""The questions of a benchmark, with the reference answers for what can be right or wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments import hub
from experiments.errors import DataError, HubUnavailable
from experiments.files import visible
from experiments.judge.prompts import digest
from experiments.results.fastchat import (
    BENCHMARKS,
    are_texts,
    first_choice,
    read_questions,
    read_rows,
)

WITH_REFERENCE = ("math", "reasoning", "coding")
HUB_COPY, HUB_FILE = "HuggingFaceH4/mt_bench_prompts", "raw/question.jsonl"
FASTCHAT = "fastchat/llm_judge/data of https://github.com/lm-sys/FastChat"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of one or two turns."""

    id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] | None
    """One per turn; None where none is needed, or none is known."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """All questions of one benchmark."""

    benchmark: str
    source: str
    """Where they were read, and whose reference answers."""
    by_id: dict[int, Question]

    @property
    def hash(self) -> str:
        """Of questions and reference answers."""
        return digest([[q.id, q.category, q.turns, q.reference] for q in self.by_id.values()])

    @property
    def without_reference(self) -> list[int]:
        """Those that should have one and do not."""
        return [
            q.id
            for q in self.by_id.values()
            if q.category in WITH_REFERENCE and q.reference is None
        ]


def load(benchmark: str, folder: Path | None) -> Questions:
    """Reads question.jsonl and reference_answer/*.jsonl.

    Args:
        benchmark: `mt_bench` or `vicuna`.
        folder: holds them, or holds FastChat's `mt_bench/` and `vicuna_bench/` that do; None: the
            hub's copy of MT-Bench, whose reference answers stand beside the questions.

    Raises:
        DataError: no such files, or lines in another format; all of them named.
        HubUnavailable: no folder given and no copy found.
    """
    path = _from_hub(benchmark) if folder is None else _inside(benchmark, folder)
    problems: list[str] = []
    rows = read_questions(path, problems)
    references, whose = _references(path.parent, problems)
    by_id: dict[int, Question] = {}
    for row in rows:
        number, turns = row["question_id"], row["turns"]
        known = row.get("reference") if references is None else references.get(number)
        usable = are_texts(known) and len(known) >= len(turns) and all(known)
        needed = row["category"] in WITH_REFERENCE
        by_id[number] = Question(
            id=number,
            category=row["category"],
            turns=tuple(turns),
            reference=tuple(known[: len(turns)]) if needed and usable else None,
        )
    if problems:
        raise DataError(f"{benchmark}: the questions cannot be used", problems)
    where = f"{HUB_COPY} on the hub" if folder is None else path.parent.name
    return Questions(benchmark=benchmark, source=f"{where}; references: {whose}", by_id=by_id)


def _inside(benchmark: str, folder: Path) -> Path:
    nested = folder / BENCHMARKS[benchmark]
    for place in (nested, folder):
        if (place / "question.jsonl").is_file():
            return place / "question.jsonl"
    raise DataError(
        f"{benchmark}: no question.jsonl in {folder} or {nested}",
        [f"--questions takes one of the folders in {FASTCHAT}, or the folder that holds both"],
    )


def _from_hub(benchmark: str) -> Path:
    if benchmark != "mt_bench":
        raise DataError(
            f"{benchmark}: its questions have no copy on the hub that this program knows",
            [f"get {BENCHMARKS[benchmark]}/ in {FASTCHAT} and give --questions FOLDER"],
        )
    hub.locate(HUB_COPY, None, probe=HUB_FILE, option="--questions", kind="dataset")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_COPY, HUB_FILE, repo_type="dataset"))
    except Exception as error:  # the hub's library raises those of its HTTP client as well
        raise HubUnavailable(
            f"dataset {HUB_COPY}: {HUB_FILE} cannot be read ({type(error).__name__})",
            [f"get mt_bench/ in {FASTCHAT} and give --questions FOLDER"],
        ) from error


def _references(folder: Path, problems: list[str]) -> tuple[dict[int, list[str]] | None, str]:
    """Answers by question, and whose; None where only the questions' own can be taken."""
    files = visible(folder / "reference_answer", "*.jsonl")
    if not files:
        return None, "the questions' own"
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        problems.append(f"{files[0].parent}: holds {names}; keep the one to be used")
    found = {}
    for row in read_rows(files[0], problems):
        found[row["question_id"]] = turns = first_choice(row)
        if turns is None:
            problems.append(f"{files[0]}: question {row['question_id']}: no choices[0].turns")
    return found, files[0].stem


def ranges(ids: Iterable[int]) -> str:
    """81, 82, 83, 90 as `81-83, 90`."""
    parts: list[list[int]] = []
    for one in sorted(ids):
        if parts and one == parts[-1][-1] + 1:
            parts[-1][1:] = [one]
        else:
            parts.append([one])
    return ", ".join("-".join(map(str, part)) for part in parts)
