"""FastChat's files of benchmark questions and answers, as read for answering and judging."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

from experiments.errors import DataError, RecordError
from experiments.results import stored

LARGEST = 2**30
"""Bytes of a file of questions or answers."""
BENCHMARKS = {"mt_bench": "mt_bench", "vicuna": "vicuna_bench"}
"""Our name of a benchmark, and FastChat's folder."""
COMMIT = "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
"""Commit of https://github.com/lm-sys/FastChat whose files have the fingerprints below."""
PROMPTS_FILE = "judge_prompts.jsonl"
PROMPTS_URL = (
    f"https://raw.githubusercontent.com/lm-sys/FastChat/{COMMIT}"
    f"/fastchat/llm_judge/data/{PROMPTS_FILE}"
)
PROMPTS = "ed5fe4559b780d6a"
"""Start of the SHA-256 of FastChat's four prompts of single answers, as in results of the judge."""
QUESTIONS = {"mt_bench": "6a1d02da6027939c", "vicuna": "234daf87fb5ff61f"}
"""The same of the questions with GPT-4's reference answers, by benchmark."""


def read_questions(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Read the questions of a question.jsonl: a unique integer question_id, category, turns.

    Args:
        path: path of the file.
        problems: list that receives a line per problem.

    Raises:
        DataError: the file cannot be read.
    """
    before, found = len(problems), []
    for row in read_rows(path, problems):
        # The hub's copy calls the turns `prompt`.
        turns = row.get("turns", row.get("prompt"))
        if are_texts(turns) and len(turns) in (1, 2) and isinstance(row.get("category"), str):
            found.append(row | {"turns": turns})
        else:
            problems.append(
                f"{path}: question {row['question_id']} needs a category and one or two turns"
            )
    if not found and len(problems) == before:
        problems.append(f"{path}: empty")
    return found


def read_rows(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Read the JSON objects of a file, each with a unique question_id.

    Problems of other lines are added to `problems`; an unreadable file raises DataError.
    """
    found: dict[int, dict[str, Any]] = {}
    try:
        lines = stored.read_bytes(path, LARGEST).split(b"\n")
    except RecordError as error:
        raise DataError(str(error)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = stored.parse_json(line)
        except ValueError:  # not JSON, or not UTF-8
            row = None
        value = row.get("question_id") if isinstance(row, dict) else None
        if not isinstance(value, int):
            problems.append(
                f"{path}: line {number} is not a JSON object with an integer question_id"
            )
        elif value in found:
            problems.append(f"{path}: line {number}: duplicate question_id {value}")
        else:
            found[value] = row
    return list(found.values())


def get_first_choice(row: dict[str, Any]) -> list[str] | None:
    """Return the turns of an answer; None if the line has another format."""
    try:
        turns = row["choices"][0]["turns"]
    except (KeyError, IndexError, TypeError):
        return None
    return turns if are_texts(turns) else None


def are_texts(value: Any) -> TypeGuard[list[str]]:
    """Return True for a non-empty list of strings."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
