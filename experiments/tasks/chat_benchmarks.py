"""Benchmark questions of several turns, answered by a trained network, in FastChat's files."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError
from experiments.files import write_atomically
from experiments.results import generations
from experiments.results.fastchat import BENCHMARKS, get_first_choice, read_questions
from experiments.tasks.generation import generate_continuations

if TYPE_CHECKING:
    import torch
    from torch import nn


log = logging.getLogger(__name__)


def read_benchmarks(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the questions of every benchmark in a folder: question_id, category, turns.

    Args:
        folder: holds mt_bench/question.jsonl, vicuna_bench/question.jsonl or both.

    Raises:
        DataError: there is none, or a line is not a question; all are named.
    """
    paths = {benchmark: folder / name / "question.jsonl" for benchmark, name in BENCHMARKS.items()}
    problems: list[str] = []
    found = {
        benchmark: read_questions(path, problems)
        for benchmark, path in paths.items()
        if path.is_file()
    }
    if not found:
        names = " or ".join(f"{name}/question.jsonl" for name in BENCHMARKS.values())
        problems = [f"no {names} there"]
    if problems:
        raise DataError(f"task.questions={folder}: not FastChat's questions", problems)
    return found


def read_answers(path: Path, questions: Sequence[dict[str, Any]]) -> Answers:
    """Read a file of answers and compare it with the questions as asked now."""
    asked = {question["question_id"]: question["turns"] for question in questions}
    found = Answers()
    for line in generations.read(path, found.damaged):
        number, turns = line.get("question_id"), get_first_choice(line)
        cut = line.get("truncated")
        if not isinstance(number, int) or turns is None or not isinstance(cut, list):
            found.damaged.append(f"{path}: damaged, no answer of this program: question {number}")
        elif number not in asked:
            found.others[number] = line
        elif line.get("asked") != asked[number] or not len(turns) == len(cut) <= len(asked[number]):
            found.outdated.append(number)
            found.current.pop(number, None)
        else:
            found.current[number] = line
    return found


def find_open_questions(path: Path, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the questions that the file does not answer in all their turns."""
    current = read_answers(path, questions).current
    return [
        question
        for question in questions
        if len(get_turns(current.get(question["question_id"]))) < len(question["turns"])
    ]


def get_turns(line: dict[str, Any] | None) -> list[str]:
    """Return the answers of a line; empty if there is no line yet."""
    return line["choices"][0]["turns"] if line else []


@dataclass
class Answers:
    """Lines of a file of answers; the last one of each question counts."""

    current: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Usable answers by question."""
    others: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Answers to questions that are not asked now."""
    outdated: list[int] = field(default_factory=list)
    """Questions whose wording has changed since they were answered."""
    damaged: list[str] = field(default_factory=list)
    """Message for each unusable line."""


def compute_answer_room(max_new_tokens: int, processor: Any) -> int:
    """Return the tokens allowed for an answer: at least half of the context is for the prompt."""
    return min(max_new_tokens, processor.model_max_length // 2)


@dataclass
class Asker:
    """Puts the questions of one benchmark to a network, turn by turn."""

    net: nn.Module
    processor: Any
    benchmark: str
    seed: int
    task: str
    """Name of the task, a part of the run folder's path."""
    conversation: Callable[[list[str], list[str]], str]
    """Function from questions and the answers to all but the last to the text to continue."""
    temperature: Callable[[str], float]
    """Function from a question's category to its sampling temperature; 0: the likeliest token."""
    batch_size: int
    """Number of questions answered at once."""
    max_new_tokens: int
    """Tokens of the longest answer, see `compute_answer_room`."""
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The latest line of each question in the file."""

    def answer(self, questions: Sequence[dict[str, Any]], run_dir: Path) -> None:
        """Write generations/<benchmark>.jsonl below a run folder, one line per question.

        Answers are appended as they end, a question of two turns first with one answer.
        Answers of a killed call are kept; damaged ones and those to another wording are generated
        again. In the end each question has one line, in the questions' order, and answers to
        others follow.

        Args:
            questions: question_id, category and turns of each.
            run_dir: the run folder.
        """
        path = generations.get_path(run_dir, self.benchmark)
        before = read_answers(path, questions)
        for problem in before.damaged:
            log.warning("%s; it is answered again", problem)
        outdated = set(before.outdated) - before.current.keys()
        if outdated:
            numbers = ", ".join(map(str, sorted(outdated)))
            log.warning("%s: other words than before, answered again: %s", self.benchmark, numbers)
        self.lines = before.current
        for turn in range(max(len(question["turns"]) for question in questions)):
            waiting = [
                question
                for question in questions
                if len(question["turns"]) > turn and len(self._answers(question)) == turn
            ]
            if waiting:
                self._turn(waiting, turn, path, _format_model_id(run_dir, self.task))
        ordered = [self.lines[question["question_id"]] for question in questions]
        text = "".join(
            json.dumps(line, ensure_ascii=False) + "\n"
            for line in [*ordered, *before.others.values()]
        )
        if text.encode() != path.read_bytes():
            write_atomically(path, text)
        cut = sum(any(line["truncated"]) for line in ordered)
        log.info(
            "%s: %d questions answered; %d of their conversations were longer than the model "
            "reads and lost their beginning",
            *(self.benchmark, len(ordered), cut),
        )

    def _answers(self, question: dict[str, Any]) -> list[str]:
        return get_turns(self.lines.get(question["question_id"]))

    def _turn(self, questions: list[dict[str, Any]], turn: int, path: Path, model: str) -> None:
        """Answer one turn of all these questions."""
        import torch

        longest = compute_answer_room(self.max_new_tokens, self.processor)
        room = self.processor.model_max_length - longest
        prompts, truncated = [], []
        for question in questions:
            asked = question["turns"][: turn + 1]
            text = self.conversation(asked, self._answers(question))
            tokens = self.processor(text, verbose=False)["input_ids"]
            truncated.append(len(tokens) > room)
            if truncated[-1]:  # a token that begins every text stays, then comes the end
                first = [token for token in tokens[:1] if token == self.processor.bos_token_id]
                tokens = [*first, *tokens[len(first) - room :]]
            prompts.append(tokens)

        generators = [
            torch.Generator().manual_seed(self._draw(question, turn)) for question in questions
        ]

        def steer(chosen: list[int]) -> GumbelSampler:
            return GumbelSampler(
                [self.temperature(questions[place]["category"]) for place in chosen],
                [generators[place] for place in chosen],
            )

        batches = generate_continuations(
            self.net,
            self.processor,
            prompts,
            batch_size=self.batch_size,
            max_new_tokens=longest,
            steer=steer,
        )
        for batch in batches:
            added = []
            for place, text in batch:
                question = questions[place]
                earlier = self.lines.get(question["question_id"], {"truncated": []})
                turns = [*self._answers(question), text.strip()]
                whole = json.dumps([model, self.benchmark, question["question_id"], turns])
                added.append(
                    {
                        "question_id": question["question_id"],
                        "answer_id": hashlib.sha256(whole.encode()).hexdigest()[:22],
                        "model_id": model,
                        "choices": [{"index": 0, "turns": turns}],
                        "tstamp": time.time(),
                        "category": question["category"],
                        "asked": question["turns"],
                        "truncated": [*earlier["truncated"], truncated[place]],
                    }
                )
            generations.append(path, added)
            self.lines |= {line["question_id"]: line for line in added}

    def _draw(self, question: dict[str, Any], turn: int) -> int:
        """Return an answer's seed, from the run's seed, the question and the turn alone."""
        text = f"{self.seed}/{self.benchmark}/{question['question_id']}/{turn}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


class GumbelSampler:
    """Change of logits with which greedy search samples from softmax(logits / T).

    The largest of logits / T + Gumbel noise is such a draw. Each row has random numbers of its own,
    so that a text depends neither on its batch nor on earlier texts.
    """

    def __init__(self, temperatures: list[float], generators: list[torch.Generator]):
        self.temperatures = temperatures
        self.generators = generators
        self.divisors: torch.Tensor | None = None  # on the device of the logits

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Add noise to logits (B, vocabulary); rows with T = 0 stay as is."""
        import torch

        if self.divisors is None:
            divisors = [temperature or 1.0 for temperature in self.temperatures]
            self.divisors = torch.tensor(divisors, device=logits.device)[:, None]
        # Of all rows in one copy, which need not wait: several a token would.
        noise = torch.ones(logits.shape, pin_memory=logits.is_cuda)
        for row, temperature in enumerate(self.temperatures):
            if temperature > 0:
                noise[row].exponential_(generator=self.generators[row])
        return logits.float() / self.divisors - noise.log_().to(logits.device, non_blocking=True)


def _format_model_id(run_dir: Path, task: str) -> str:
    """Return a run's name among the answers of several: model, method, changes, seed."""
    parts = list(run_dir.parts)
    start = len(parts) - 1 - parts[::-1].index(task) if task in parts else len(parts) - 1
    return "-".join([*parts[max(0, start - 1) : start], *parts[start + 1 :]])
