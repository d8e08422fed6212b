"""Made-up data for smoke tests, in the format of each task, where no real data are at hand."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.files import write_atomically
from experiments.tasks import E2E, DreamBooth, Glue, Images, Instruction, Task
from experiments.tasks.chat_benchmarks import BENCHMARKS
from experiments.tasks.dreambooth_data import LISTING

WORDS = "the a small old red river house dog table song runs stands reads breaks near under".split()
ROWS = {"train": 32, "validation": 16, "test": 16}
"""Rows per split; images have at least two per class."""
MADE_UP = "made-up"
SIDE = 32  # pixels of an image
QUESTIONS = ("Name three rivers.", "Which of them is the longest?")


def make_data(task: Task, folder: Path, real: Path | None) -> None:
    """Put data for a task where its smoke test looks for them, unless they exist.

    Args:
        task: the configured task.
        folder: is created, or becomes a link to real data; DreamBooth links each subject.
        real: folder of real data, one folder per task below it or below its `glue`.
    """
    if folder.is_symlink():  # perhaps to where the data lay before
        folder.unlink()
    places = [] if real is None else [real / task.name, real / "glue" / task.name]
    found = [place for place in places if place.is_dir()]
    if found and isinstance(task, DreamBooth) and not folder.is_dir():
        folder.mkdir(parents=True)
        for item in found[0].iterdir():  # a copy may lack some of the subjects
            (folder / item.name).symlink_to(item.absolute())
    if found and not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(found[0].absolute())
    elif not (folder / MADE_UP).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _MAKERS[type(task)](task, folder, random.Random(task.name))
        write_atomically(folder / MADE_UP, "for rehearsals only\n")


def make_questions(folder: Path, real: Path | None) -> Path:
    """Write two questions per benchmark: the first two real ones, or two of two turns."""
    for name in BENCHMARKS.values():
        given = real / name / "question.jsonl" if real is not None else Path()
        if given.is_file():
            lines = given.read_text(encoding="utf-8").splitlines()[:2]
        else:
            lines = [
                json.dumps({"question_id": number, "category": "general", "turns": [*QUESTIONS]})
                for number in (1, 2)
            ]
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name / "question.jsonl", "".join(f"{one}\n" for one in lines))
    return folder


def _make_sentence(draw: random.Random, words: int = 8) -> str:
    return " ".join(draw.choices(WORDS, k=words)).capitalize() + "."


def _glue(task: Glue, folder: Path, draw: random.Random) -> None:
    for split in ("train", *task.splits):
        count = ROWS["train" if split == "train" else "validation"]
        columns: dict[str, list[Any]] = {
            name: [_make_sentence(draw) for _ in range(count)] for name in task.columns
        }
        if task.labels == 1:
            columns["label"] = [round(draw.uniform(0, 5), 1) for _ in range(count)]
        else:
            columns["label"] = [row % task.labels for row in range(count)]
        _write(folder / f"{split}.parquet", columns)


def _e2e(task: E2E, folder: Path, draw: random.Random) -> None:
    for split, count in ROWS.items():
        names = [f"{draw.choice(WORDS)} {number // 2}" for number in range(count)]
        columns = {
            "meaning_representation": [f"name[{name}], area[riverside]" for name in names],
            "human_reference": [
                f"{name} is by the river. {_make_sentence(draw)}" for name in names
            ],
        }
        _write(folder / f"{split}.parquet", columns)


def _instruction(task: Instruction, folder: Path, draw: random.Random) -> None:
    count = ROWS["train"]
    columns = {
        "instruction": [_make_sentence(draw) for _ in range(count)],
        "input": [_make_sentence(draw) if row % 3 == 0 else "" for row in range(count)],
        "output": [_make_sentence(draw) for _ in range(count)],
    }
    _write(folder / "train.parquet", columns)


def _images(task: Images, folder: Path, draw: random.Random) -> None:
    splits = ["train", *(["test"] if task.test_share is None else [])]
    splits += ["validation"] if task.validation_share is None else []
    for split in splits:
        labels = [row % task.classes for row in range(max(ROWS[split], 2 * task.classes))]
        columns = {"image": [{"bytes": _make_image(draw)} for _ in labels], "label": labels}
        _write(folder / f"{split}.parquet", columns)


def _dreambooth(task: DreamBooth, folder: Path, draw: random.Random) -> None:
    subjects = ("dog", "bear_plushie", "colorful_sneaker")
    for subject in (one for one in subjects if not (folder / one).exists()):
        (folder / subject).mkdir()
        for number in range(4):
            (folder / subject / f"{number:02d}.jpg").write_bytes(_make_image(draw, 2 * SIDE))
    if (folder / LISTING).exists():
        return
    classes = "\n".join(f"{subject},{subject.rpartition('_')[2]}" for subject in subjects)
    prompts = "prompt_list = [\n'a {0} {1} on a table'.format(unique_token, class_token),\n]\n"
    text = f"Classes\n\nsubject_name,class\n{classes}\n\nPrompts\n\n"
    text += f"Object Prompts\n\n{prompts}\nLive Subject Prompts\n\n{prompts}"
    write_atomically(folder / LISTING, text)


def _make_image(draw: random.Random, side: int = SIDE) -> bytes:
    """Return a JPEG of one colour with a square of another."""
    from PIL import Image

    colours = [tuple(draw.randrange(256) for _ in range(3)) for _ in range(2)]
    image = Image.new("RGB", (side, side), colours[0])
    image.paste(colours[1], (side // 4, side // 4, side // 2, side // 2))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def _write(path: Path, columns: dict[str, Sequence[Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


_MAKERS = {
    Glue: _glue,
    Images: _images,
    E2E: _e2e,
    Instruction: _instruction,
    DreamBooth: _dreambooth,
}
