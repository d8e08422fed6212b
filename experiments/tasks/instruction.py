"""Instruction tuning on Alpaca's rows, with answers to questions of MT-Bench and Vicuna."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import DataError
from experiments.files import list_visible
from experiments.hub.fingerprints import Files
from experiments.results import generations
from experiments.results.identity import BEFORE, LOCAL
from experiments.tasks import alpaca
from experiments.tasks import chat_benchmarks as benchmarks
from experiments.tasks.chat_template import fill_template
from experiments.tasks.language import Collator, Language
from experiments.tasks.task import Data

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

log = logging.getLogger(__name__)

SPLIT_SEED = 0  # seed of held-out rows and `train_rows`: the same for every method and run seed
HELD_OUT = "validation"


@dataclass(kw_only=True)
class Instruction(Language):
    """Rows of an instruction, an optional input and an answer.

    The answers to benchmark questions are judged by another command (`experiments.judge`).
    """

    repo: str
    """Hub repository."""
    file: str
    """File of the repository that holds the rows."""
    prompt: str
    """Format of a row without input, with {instruction}."""
    prompt_with_input: str
    """Format of a row with input, with {instruction} and {input}."""
    further_turn: str
    """Format of the next question in a conversation, with {instruction}."""
    validation_rows: int
    """Number of rows held out for the cross entropy, drawn once with a fixed seed; 0: none."""
    temperatures: dict[str, float]
    """Sampling temperature by category of a question; 0: the likeliest token."""
    other_temperature: float
    """Sampling temperature of all other categories."""
    chat_template: bool = field(default=False, metadata={BEFORE: False})
    """Format rows and conversations by the tokenizer's chat template, for models tuned to one,
    instead of the three formats above."""
    questions: str | None = field(default=None, metadata=LOCAL)
    """Folder of the benchmarks, each a folder with question.jsonl; null: no answers."""

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if self.validation_rows < 0:
            yield f"task.validation_rows={self.validation_rows}: must not be negative"
        for key, fields in (
            ("prompt", ["{instruction}"]),
            ("prompt_with_input", ["{instruction}", "{input}"]),
            ("further_turn", ["{instruction}"]),
        ):
            form = getattr(self, key)
            yield from (f"task.{key}: lacks {field}" for field in fields if field not in form)
            try:
                form.format(**{field.strip("{}"): "" for field in fields})
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                yield (
                    f"task.{key}={form!r}: cannot be filled in ({error!r}; allowed: "
                    f"{' and '.join(fields)}, and doubled braces for braces)"
                )
        for category, value in {**self.temperatures, "other": self.other_temperature}.items():
            if not 0 <= value < 10:
                yield f"task temperature of {category}={value}: must be in [0, 10)"

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`; checks the questions too."""
        source = hub.locate(
            self.repo,
            self.path,
            probe=self.file,
            option="task.path",
            kind="dataset",
            offline=offline,
        )
        if self.path is not None:
            self._file(Path(source))
        self._questions()
        return source

    def downloads(self) -> list[hub.Download]:
        """See `Task.downloads`."""
        if self.path is not None:
            return []
        return [hub.Download(repo=self.repo, kind="dataset", patterns=(self.file,))]

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`; questions are compared by `pending_prompts`."""
        folder = hub.locate_local(self.repo, self.path, kind="dataset")
        if folder is None:
            return {}
        path = self._file(folder) if self.path is not None else folder / self.file
        return {"data": Files(paths=[path])}

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        rows, fingerprint = self._read(source)
        splits = {"train": rows}
        if self.validation_rows:
            if self.validation_rows >= len(rows):
                raise DataError(
                    f"task.validation_rows={self.validation_rows}: there are {len(rows)} rows"
                )
            parts = rows.train_test_split(test_size=self.validation_rows, seed=SPLIT_SEED)
            splits = {"train": parts["train"], HELD_OUT: parts["test"]}
        log.info(
            "%d rows, %d of them held out (the paper says 51K; Stanford Alpaca has 52002)",
            *(len(rows), self.validation_rows),
        )
        if self.train_rows is not None:
            if self.train_rows > len(splits["train"]):
                raise DataError(
                    f"task.train_rows={self.train_rows}: there are {len(splits['train'])} rows"
                )
            chosen = splits["train"].shuffle(seed=SPLIT_SEED)
            splits["train"] = chosen.select(range(self.train_rows))
        if self.eval_rows is not None and HELD_OUT in splits:
            held = splits[HELD_OUT]
            splits[HELD_OUT] = held.select(range(min(self.eval_rows, len(held))))
        template = f" chat {getattr(processor, 'chat_template', None)}"
        parts = {
            name: self.tokenised(
                part,
                processor,
                lambda row: self.pieces(row, processor),
                f"{fingerprint} {name} {self.validation_rows} {self.train_rows} {self.eval_rows} "
                f"{self.prompt} {self.prompt_with_input}" + template * self.chat_template,
            )
            for name, part in splits.items()
        }
        prompts = self._prompts(processor)
        return Data(
            train=parts["train"],
            lengths=[len(tokens) for tokens in parts["train"]["input_ids"]],
            evaluations={name: part for name, part in parts.items() if name != "train"},
            prompts=prompts,
            longest=self._longest(prompts, processor),
            collate=Collator(processor.pad_token_id),
            fingerprint=fingerprint,
        )

    def generate(
        self, net: nn.Module, processor: Any, data: Data, run_dir: Path, seed: int
    ) -> None:
        """Answer every question, in FastChat's format: generations/<benchmark>.jsonl."""
        for benchmark, questions in data.prompts.items():
            self.asker(net, processor, benchmark, seed).answer(questions, run_dir)

    def pending_prompts(self, run_dir: Path) -> dict[str, Sequence[dict[str, Any]]]:
        """See `Task.pending_prompts`: benchmarks with a question that has no current answer."""
        return {
            benchmark: questions
            for benchmark, questions in self._questions().items()
            if benchmarks.find_open_questions(generations.get_path(run_dir, benchmark), questions)
        }

    def asker(self, net: nn.Module, processor: Any, benchmark: str, seed: int) -> benchmarks.Asker:
        """Return an `Asker` that puts a benchmark's questions to a network in this format."""
        return benchmarks.Asker(
            net,
            processor,
            benchmark,
            seed,
            task=self.name,
            conversation=lambda asked, answers: self.conversation(asked, answers, processor),
            temperature=self.temperature,
            batch_size=self.generation_batch_size,
            max_new_tokens=self.max_new_tokens,
        )

    def conversation(self, asked: list[str], answers: list[str], processor: Any) -> str:
        """Format the conversation that the next answer continues.

        Args:
            asked: questions, one more than answers.
            answers: answers to the earlier questions.
            processor: the tokenizer.

        Raises:
            ConfigError: `chat_template` is set, and the tokenizer has none that can be filled in.
        """
        if self.chat_template:
            said = zip(asked, [*answers, None], strict=True)
            messages = [
                {"role": role, "content": text}
                for turn in said
                for role, text in zip(("user", "assistant"), turn, strict=True)
                if text is not None
            ]
            return fill_template(processor, messages)
        text = self.prompt.format(instruction=asked[0])
        for answer, question in zip(answers, asked[1:], strict=True):
            text += answer + self.further_turn.format(instruction=question)
        return text

    def temperature(self, category: str) -> float:
        """Return the sampling temperature of a question's category."""
        return self.temperatures.get(category, self.other_temperature)

    def pieces(self, row: dict[str, str], processor: Any) -> tuple[str, str]:
        """Return prompt and completion of a row; see `conversation`."""
        if self.chat_template:
            asked = "\n\n".join(text for text in (row["instruction"], row["input"]) if text.strip())
            return self.conversation([asked], [], processor), row["output"]
        form = self.prompt_with_input if row["input"].strip() else self.prompt
        return form.format(instruction=row["instruction"], input=row["input"]), row["output"]

    @property
    def prompt_columns(self) -> list[str]:
        """See `Language.prompt_columns`; a column `input` is read where there is one."""
        return ["instruction"]

    def make_prompt(self, row: dict[str, Any], processor: Any) -> str:
        """See `Language.make_prompt`."""
        given = {"instruction": row["instruction"], "input": row.get("input") or "", "output": ""}
        return self.pieces(given, processor)[0]

    def _prompts(self, processor: Any) -> dict[str, list[dict[str, Any]]]:
        """Return questions per benchmark; warns before training if there are none to answer."""
        if self.questions is None:
            log.warning("task.questions=null: this run will answer no benchmark questions")
            return {}
        room = benchmarks.compute_answer_room(self.max_new_tokens, processor)
        if room < self.max_new_tokens:
            log.warning(
                "task.max_new_tokens=%d: answers end after %d, half of what the model reads",
                *(self.max_new_tokens, room),
            )
        return self._questions()

    def _longest(self, prompts: dict[str, list[dict[str, Any]]], processor: Any) -> int:
        """Return the tokens of the longest conversation, with answers of full length."""
        room = benchmarks.compute_answer_room(self.max_new_tokens, processor)
        turns = [row["turns"] for questions in prompts.values() for row in questions]
        texts = [self.conversation(asked, [""] * (len(asked) - 1), processor) for asked in turns]
        tokens = processor(texts, verbose=False)["input_ids"] if texts else []
        return max(
            (len(row) + room * len(asked) for row, asked in zip(tokens, turns, strict=True)),
            default=0,
        )

    def _questions(self) -> dict[str, list[dict[str, Any]]]:
        """Read the questions per benchmark; DataError if the folder does not hold them."""
        if self.questions is None:
            return {}
        found = benchmarks.read_benchmarks(Path(self.questions).expanduser())
        return {name: questions[: self.eval_rows] for name, questions in found.items()}

    def _file(self, folder: Path) -> Path:
        """Return the one file of a folder that holds the rows."""
        parquet = [*folder.glob("train*.parquet"), *folder.glob("data/train*.parquet")]
        for found in (sorted(parquet), list_visible(folder, "*.json")):
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(path.name for path in found)
                raise DataError(f"task.path={self.path}: expected one file, found {names}")
        present = sorted(item.name for item in folder.iterdir())[:12]
        raise DataError(
            f"task.path={self.path}: not the data of task={self.name}",
            [
                "no train.parquet and no .json file there",
                f"the folder holds: {', '.join(present) or 'nothing'}",
            ],
        )

    def _read(self, source: str | None) -> tuple[Dataset, str]:
        """Read all rows, and hash their file."""
        if self.path is not None:
            path = self._file(Path(source or self.path))
        else:
            path = hub.fetch(*self.downloads()) / self.file
        return alpaca.read_rows(path, self.name)
