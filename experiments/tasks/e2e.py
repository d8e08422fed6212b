"""E2E NLG: from a restaurant's attributes to a sentence or two (Table 3)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import DataError, RecordError
from experiments.hub.fingerprints import Files
from experiments.metrics import text as nlg
from experiments.results import generations
from experiments.tasks import e2e_data
from experiments.tasks.generation import generate_continuations
from experiments.tasks.language import Collator, Language
from experiments.tasks.task import Data, OutputScores

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

SUBSET_SEED = 0  # of `train_rows`: one subset for every method and run seed
BLANK = "\n\n"  # a text ends at a blank line, GPT-2's token 628


@dataclass(kw_only=True)
class E2E(Language):
    """E2E with the prompts and beam search of microsoft/LoRA, data and metrics of the challenge.

    A row is the attributes and the end of text, then " ", reference and end of text. References are
    grouped by equal attributes, in the order of the file; the test set's 630 groups are answered.
    """

    repo: str
    """Hub repository."""
    revision: str
    """Branch of the repository that holds parquet files."""
    beams: int
    """Width of the beam search."""
    length_penalty: float
    """Exponent p in (sum of log probabilities) / (new tokens, end included)^p, to rank beams."""
    no_repeat_ngram: int
    """Size of n-grams that must not repeat within a text (without its prompt); 0: no limit."""

    @property
    def measurable(self) -> Sequence[str]:
        """See `Task.measurable`."""
        return (*nlg.METRICS, *super().measurable)

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if self.beams < 1:
            yield f"task.beams={self.beams}: must be at least 1"
        if self.no_repeat_ngram < 0:
            yield f"task.no_repeat_ngram={self.no_repeat_ngram}: must not be negative"

    def check(self) -> None:
        """See `Task.check`."""
        nlg.check_programs(self._wanted)

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        source = hub.locate(
            self.repo,
            self.path,
            probe="default/train/0000.parquet",
            option="task.path",
            kind="dataset",
            revision=self.revision,
            offline=offline,
        )
        if self.path is not None:
            e2e_data.find_files(Path(source), self._place)
        return source

    def downloads(self) -> list[hub.Download]:
        """See `Task.downloads`."""
        if self.path is not None:
            return []
        files = ("default/*/*.parquet",)
        return [
            hub.Download(repo=self.repo, kind="dataset", revision=self.revision, patterns=files)
        ]

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`."""
        folder = hub.locate_local(self.repo, self.path, kind="dataset", revision=self.revision)
        found = {} if folder is None else e2e_data.find_files(folder, self._place)
        return {f"{split} data": Files(paths=[path]) for split, path in found.items()}

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        from datasets import Dataset

        splits, fingerprint = e2e_data.read(
            e2e_data.find_files(self._folder(source), self._place), self._place
        )
        for difference in e2e_data.find_differences(splits):
            log.warning("task=%s: %s", self.name, difference)
        end = processor.eos_token

        def prepare(split: str, count: int | None) -> Dataset:
            given, wanted = zip(*splits[split], strict=True)
            rows = Dataset.from_dict({"given": given, "wanted": wanted})
            if split == "train" and count is not None:
                if count > len(rows):
                    raise DataError(f"task.train_rows={count}: there are {len(rows)} rows")
                rows = rows.shuffle(seed=SUBSET_SEED)
            rows = rows.select(range(min(count or len(rows), len(rows))))
            key = f"{fingerprint} {split} {count} {e2e_data.FORMAT}"
            return self.tokenised(
                rows,
                processor,
                lambda row: (e2e_data.linearise(row["given"]) + end, f" {row['wanted'].strip()}"),
                key,
            )

        train = prepare("train", self.train_rows)
        asked = self._prompts(splits["test"], processor) if self._wanted else []
        longest = max((len(prompt["input_ids"]) for prompt in asked), default=0)
        return Data(
            train=train,
            lengths=[len(tokens) for tokens in train["input_ids"]],
            evaluations={"validation": prepare("validation", self.eval_rows)},
            prompts={"test": asked} if asked else {},
            longest=longest + self.max_new_tokens,
            collate=Collator(processor.pad_token_id),
            fingerprint=fingerprint,
        )

    def generate(
        self, net: nn.Module, processor: Any, data: Data, run_dir: Path, seed: int
    ) -> None:
        """See `Task.generate`; generations/test.jsonl holds all that `evaluate_outputs` needs."""
        for split, prompts in data.prompts.items():
            path = generations.get_path(run_dir, split)
            done = {line["id"] for line in _read_texts(path)}
            open_ = [prompt for prompt in prompts if prompt["id"] not in done]
            log.info("%s: %d texts to be written, %d are there", split, len(open_), len(done))
            for batch in generate_continuations(
                net,
                processor,
                [prompt["input_ids"] for prompt in open_],
                batch_size=self.generation_batch_size,
                max_new_tokens=self.max_new_tokens,
                **self.get_decoding(processor),
            ):
                generations.append(
                    path,
                    [
                        {
                            "id": open_[position]["id"],
                            "given": open_[position]["given"],
                            "text": self.finish_text(text),
                            "references": open_[position]["references"],
                        }
                        for position, text in batch
                    ],
                )

    @property
    def prompt_columns(self) -> list[str]:
        """See `Language.prompt_columns`."""
        return ["meaning_representation"]

    def make_prompt(self, row: dict[str, Any], processor: Any) -> str:
        """See `Language.make_prompt`."""
        return e2e_data.linearise(row["meaning_representation"]) + processor.eos_token

    def get_decoding(self, processor: Any) -> dict[str, Any]:
        """See `Language.get_decoding`: beam search."""
        blank = processor(BLANK, add_special_tokens=False)["input_ids"]
        return {
            "ends": blank if len(blank) == 1 else (),
            "no_repeat_ngram": self.no_repeat_ngram,
            "num_beams": self.beams,
            "length_penalty": self.length_penalty,
        }

    def finish_text(self, text: str) -> str:
        """See `Language.finish_text`."""
        return text.partition(BLANK)[0].strip()

    def evaluate_outputs(self, run_dir: Path, *, device: str = "auto") -> OutputScores | None:
        """See `Task.evaluate_outputs`; BLEU has a bootstrap interval over the groups."""
        if not self._wanted:
            return None
        path = generations.get_path(run_dir, "test")
        lines = sorted(_read_texts(path), key=lambda line: line["id"])
        if not lines:
            raise RecordError(f"{path}: nothing was generated")
        texts, references = ([line[key] for line in lines] for key in ("text", "references"))
        interval = None
        if self._wanted[0] == "bleu":
            interval = nlg.bleu_interval(nlg.bleu_statistics(texts, references))
        return OutputScores(
            scores={"test": nlg.compute_scores(texts, references, self._wanted)}, interval=interval
        )

    @property
    def _wanted(self) -> list[str]:
        """Metrics of generated texts."""
        return [name for name in self.metrics if name in nlg.METRICS]

    def _prompts(self, rows: list[e2e_data.MeaningPair], processor: Any) -> list[dict[str, Any]]:
        """Return one prompt per distinct meaning, with all its references."""
        groups: dict[str, list[str]] = {}
        for given, reference in rows:
            groups.setdefault(given, []).append(reference)
        chosen = list(groups.items())[: self.eval_rows]
        texts = [e2e_data.linearise(given) + processor.eos_token for given, _ in chosen]
        tokens = processor(texts)["input_ids"]
        room = processor.model_max_length - self.max_new_tokens
        longest = max(map(len, tokens))
        if longest > room:
            long = sum(len(row) > room for row in tokens)
            raise DataError(
                f"task={self.name}: {long} of {len(tokens)} prompts leave no room for "
                f"task.max_new_tokens={self.max_new_tokens}",
                [
                    f"the longest has {longest} tokens, the model reads "
                    f"{processor.model_max_length} in all (allowed: up to {room})"
                ],
            )
        return [
            {"id": position, "given": given, "references": references, "input_ids": row}
            for position, ((given, references), row) in enumerate(zip(chosen, tokens, strict=True))
        ]

    @property
    def _place(self) -> str:
        """Place of the data as error messages name it."""
        return f"task={self.name}, " + (
            f"task.path={self.path}" if self.path else f"dataset {self.repo}"
        )

    def _folder(self, source: str | None) -> Path:
        """Return the folder with the files, downloaded if necessary."""
        if self.path is not None:
            return Path(source or self.path)
        return hub.fetch(*self.downloads())


def _read_texts(path: Path) -> list[dict[str, Any]]:
    """Read the texts generated so far; RecordError names the first damaged line."""
    lines = generations.read(path)
    kinds = {"id": int, "given": str, "text": str, "references": list}
    for number, line in enumerate(lines, 1):
        wrong = [key for key, kind in kinds.items() if not isinstance(line.get(key), kind)]
        if not wrong and not line["references"]:
            wrong = ["references"]
        if wrong:
            raise RecordError(f"{path}, line {number}: damaged, unusable {', '.join(wrong)}")
    return lines
