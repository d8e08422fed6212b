"""Judge prompts, built in or from a file in FastChat's format."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import DataError
from experiments.results.fastchat import PROMPTS_FILE

BUILT_IN = Path(__file__).with_name("prompts.yaml")

# (with a reference answer, turn) by the names of FastChat.
FASTCHAT_KINDS = {
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
    """System message and template of the user message."""

    name: str
    system: str
    template: str

    @property
    def hash(self) -> str:
        """Hash of both texts."""
        return hash_json([self.system, self.template])


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Four prompts of single-answer grading, by (with a reference answer, turn)."""

    source: str
    """`ours`, or the name of the file."""
    kinds: dict[tuple[bool, int], Prompt]

    @property
    def hash(self) -> str:
        """Hash of all four."""
        return hash_json([self.kinds[kind].hash for kind in sorted(FIELDS)])

    def format_messages(
        self, questions: Sequence[str], answers: Sequence[str], references: Sequence[str] | None
    ) -> tuple[Prompt, list[dict[str, str]]]:
        """Return the prompt and its messages that have the last answer graded.

        Args:
            questions: questions up to the graded turn, one or two.
            answers: answers of the assistant, as many.
            references: reference answers, as many, or None.
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


def find_prompts(questions: Path | None) -> Path | None:
    """Find FastChat's file of prompts in or beside a folder of questions; None if it has none."""
    folders = () if questions is None else (questions, questions.absolute().parent)
    return next((path for one in folders if (path := one / PROMPTS_FILE).is_file()), None)


def load_prompts(path: Path | None = None) -> Prompts:
    """Load the judge prompts.

    Args:
        path: file in FastChat's format (judge_prompts.jsonl); None: the built-in prompts.

    Raises:
        DataError: lines that are not JSON, missing prompts, missing or unknown placeholders; lists
            all of them.
    """
    if path is None:
        import yaml

        entries = yaml.safe_load(BUILT_IN.read_text(encoding="utf-8"))
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
    for number, entry in enumerate(_read_lines(path), 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if entry is None:
            problems.append(f"line {number}: not JSON")
        if isinstance(name, str) and name in FASTCHAT_KINDS:
            system, template = entry.get("system_prompt", ""), entry.get("prompt_template")
            if isinstance(system, str) and isinstance(template, str):
                problems += _check_placeholders(name, template)
            else:
                problems.append(f"{name}: prompt_template (and system_prompt) must be a string")
            kinds[FASTCHAT_KINDS[name]] = Prompt(name=name, system=system, template=template)
    missing = [name for name, kind in FASTCHAT_KINDS.items() if kind not in kinds]
    if missing:
        problems.append(f"missing prompts: {', '.join(missing)}")
    if problems:
        raise DataError(f"--prompts {path}: not FastChat's judge prompts", problems)
    return Prompts(source=path.name, kinds=kinds)


def _read_lines(path: Path) -> list[Any]:
    """Return the JSON values of a file, None for lines that are not JSON."""
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


def _check_placeholders(name: str, template: str) -> list[str]:
    """Return the problems of the placeholders in a template."""
    try:
        used = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        return [
            f"{name}: prompt_template is not a valid template ({error}); literal braces are "
            "written {{ and }}"
        ]
    known = FIELDS[FASTCHAT_KINDS[name]]
    return [
        *(f"{name}: prompt_template misses {{{field}}}" for field in sorted(known - used)),
        *(
            f"{name}: unknown placeholder {{{field}}}, allowed: {', '.join(sorted(known))}"
            for field in sorted(used - known)
        ),
    ]


def hash_json(value: Any) -> str:
    """Return the hash of a JSON value, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Answers of language models may contain half a surrogate pair.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
