"""The words that ask for a grade: ours, or a file in FastChat's format; each with its hash."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import DataError

OURS = Path(__file__).with_name("prompts.yaml")

# FastChat's names: with or without a reference answer, first or second turn.
FASTCHAT = {
    "single-v1": (False, 1),
    "single-v1-multi-turn": (False, 2),
    "single-math-v1": (True, 1),
    "single-math-v1-multi-turn": (True, 2),
}
FIELDS = {
    (False, 1): {"question", "answer"},
    (False, 2): {"question_1", "answer_1", "question_2", "answer_2"},
    (True, 1): {"question", "ref_answer_1", "answer"},
    (True, 2): {"question_1", "ref_answer_1", "question_2", "ref_answer_2", "answer_1", "answer_2"},
}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A system message and a template of the user's message."""

    name: str
    system: str
    template: str

    @property
    def hash(self) -> str:
        """Of both texts."""
        return digest([self.system, self.template])


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The four prompts of single-answer grading, by (with a reference answer, turn)."""

    source: str
    """`ours`, or the name of the file given."""
    kinds: dict[tuple[bool, int], Prompt]

    @property
    def hash(self) -> str:
        """Of all four."""
        return digest([self.kinds[kind].hash for kind in sorted(FIELDS)])

    def messages(
        self, questions: Sequence[str], answers: Sequence[str], references: Sequence[str] | None
    ) -> tuple[Prompt, list[dict[str, str]]]:
        """What is sent to have the last of the answers graded.

        Args:
            questions: those asked up to the graded turn, one or two.
            answers: the assistant's, as many.
            references: as many, or None for a question without.
        """
        turn = len(questions)
        prompt = self.kinds[references is not None, turn]
        values = {"question": questions[0], "answer": answers[0]}
        for number in range(turn):
            values[f"question_{number + 1}"] = questions[number]
            values[f"answer_{number + 1}"] = answers[number]
            if references is not None:
                values[f"ref_answer_{number + 1}"] = references[number]
        user = {"role": "user", "content": prompt.template.format_map(values)}
        system = {"role": "system", "content": prompt.system}
        return prompt, [system, user] if prompt.system else [user]


def load(path: Path | None = None) -> Prompts:
    """Our prompts, or those of a file in FastChat's format (judge_prompts.jsonl).

    Raises:
        DataError: naming every line that is not JSON, every missing prompt and every placeholder
            that is missing or unknown.
    """
    if path is None:
        import yaml

        entries = yaml.safe_load(OURS.read_text(encoding="utf-8"))
        return Prompts(
            source="ours",
            kinds={
                (entry["reference"], entry["turn"]): Prompt(
                    name=entry["name"], system=entry["system"], template=entry["template"]
                )
                for entry in entries
            },
        )
    kinds: dict[tuple[bool, int], Prompt] = {}
    problems = []
    for number, entry in enumerate(_lines(path), 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if entry is None:
            problems.append(f"line {number}: not JSON")
        if name in FASTCHAT:
            system, template = entry.get("system_prompt", ""), entry.get("prompt_template")
            if isinstance(system, str) and isinstance(template, str):
                problems += _placeholders(name, template)
            else:
                problems.append(f"{name}: needs prompt_template (and system_prompt) as text")
            kinds[FASTCHAT[name]] = Prompt(name=name, system=system, template=template)
    missing = [name for name, kind in FASTCHAT.items() if kind not in kinds]
    if missing:
        problems.append(f"without {', '.join(missing)}")
    if problems:
        raise DataError(f"--prompts {path}: not FastChat's judge prompts", problems)
    return Prompts(source=path.name, kinds=kinds)


def _lines(path: Path) -> list[Any]:
    """JSON values of a file, None for a line that is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"--prompts {path}: cannot be read ({error.strerror})") from error
    found = []
    for line in filter(bytes.strip, lines):
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(None)
    return found


def _placeholders(name: str, template: str) -> list[str]:
    """What is wrong with the placeholders of a template."""
    try:
        used = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        return [f"{name}: prompt_template cannot be filled in ({error}); double literal braces"]
    known = FIELDS[FASTCHAT[name]]
    return [
        *(f"{name}: prompt_template lacks {{{field}}}" for field in sorted(known - used)),
        *(
            f"{name}: unknown placeholder {{{field}}}, known: {', '.join(sorted(known))}"
            for field in sorted(used - known)
        ),
    ]


def digest(value: Any) -> str:
    """Hash of a JSON value, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Answers come from language models, which may leave half of a surrogate pair.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
