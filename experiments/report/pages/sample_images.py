"""Figure 10: images that stored runs drew of their subjects, a row for each prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.subsets import find_cuts
from experiments.report.plots import style
from experiments.report.render.document import (
    Block,
    Heading,
    Items,
    Line,
    Page,
    Picture,
    Prose,
    Shown,
    Table,
    heading,
    link,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

IMAGES, PHOTOS = "images", "subject"
"""Folder of a run's images, and the one in it with the photos that it learnt from."""
OWN = 2
"""Prompts shown of a subject for which no run has drawn the figure's."""
SIDE = 192
"""Pixels of an image in the figure."""


@dataclass(kw_only=True)
class DrawnPrompt:
    """Row of the figure: one subject and prompt."""

    subject: str
    folder: str
    """Of the prompt, in each run's images."""
    papers: bool
    """True if the figure has the prompt."""
    photo: Path | None = None
    images: dict[str, tuple[Run, Path]] = field(default_factory=dict)
    """By method."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of the images that are stored."""
    model, found = read_samples(facts, index)
    wanted = sum(len(one["prompts"]) for one in facts["samples"])
    papers = sum(one.papers for one in found) if model == facts["model"] else 0
    summary = f"{papers} of the paper's {wanted} pairs of subject and prompt have images."
    blocks: list[Block] = [*heading(facts), Prose(f"**{summary}**")]
    if found:
        blocks.append(
            Picture(
                name=name,
                alt=f"A photo of each subject and what {model} drew of it, by method.",
                caption=f"{title(facts)}: {model}, the first image of each prompt",
                draw=partial(_draw, facts, found),
            )
        )
        blocks.append(_runs(facts, found, index))
    blocks.append(
        Prose(f"To run it: `{facts['run']}`; with prompts of the figure: `{_draws(facts)}`")
    )
    blocks += [Heading("Notes"), Items(facts["notes"])]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=[
            {
                "model": model,
                "subject": one.subject,
                "prompt": one.folder,
                "papers": one.papers,
                "method": method,
                "image": f"{index.name(run)}/{path.relative_to(run.run_dir).as_posix()}",
            }
            for one in found
            for method, (run, path) in one.images.items()
        ]
        or [{"model": None}],
        rule="last",
        summary=summary,
    )


def read_samples(facts: dict[str, Any], index: RunIndex) -> tuple[str | None, list[DrawnPrompt]]:
    """Return the model that is shown, the paper's if it was run, and a row for each prompt."""
    runs = [run for run in index.runs if (run.run_dir / IMAGES / PHOTOS).is_dir()]
    models = sorted(
        {run.record.run["model"] for run in runs}, key=lambda one: one != facts["model"]
    )
    if not models:
        return None, []
    mine = [run for run in runs if run.record.run["model"] == models[0]]
    prompts = {one["subject"]: one["prompts"] for one in facts["samples"]}
    subjects = {str(run.values.get("task.subject")) for run in mine}
    found = []
    for subject in sorted(subjects, key=lambda one: (one not in prompts, one)):
        of_subject = [run for run in mine if str(run.values.get("task.subject")) == subject]
        rows = _rows(subject, of_subject, prompts.get(subject, []), facts, index)
        papers = [row for row in rows if row.papers]
        found += papers or rows[:OWN]
    return models[0], found


def _rows(
    subject: str, runs: list[Run], prompts: list[str], facts: dict[str, Any], index: RunIndex
) -> list[DrawnPrompt]:
    rows: dict[str, DrawnPrompt] = {}
    # Plain runs first: one without fine-tuning is a cut and changed one of FourierFT.
    for run in sorted(
        runs, key=lambda run: (len(find_cuts(run)), len(run.record.run["variant"] or ""), run.seed)
    ):
        method = run.record.run["method"]
        photos = _images(run.run_dir / IMAGES / PHOTOS, index)
        for folder in sorted(path for path in (run.run_dir / IMAGES).iterdir() if path.is_dir()):
            drawn = [] if folder.name == PHOTOS else _images(folder, index)
            if not drawn or method not in facts["methods"]:
                continue
            papers = any(_slug(prompt) in folder.name for prompt in prompts)
            row = DrawnPrompt(subject=subject, folder=folder.name, papers=papers)
            row = rows.setdefault(folder.name, row)
            row.photo = row.photo or next(iter(photos), None)
            row.images.setdefault(method, (run, drawn[0]))
    order = {_slug(prompt): place for place, prompt in enumerate(prompts)}
    return sorted(
        rows.values(),
        key=lambda row: min(
            (place for slug, place in order.items() if slug in row.folder), default=len(order)
        ),
    )


def _slug(prompt: str) -> str:
    return prompt.lower().replace(" ", "-")


def _images(folder: Path, index: RunIndex) -> list[Path]:
    """Return the images of a folder that can be read, by name."""
    from PIL import Image

    found = []
    for path in sorted(folder.glob("*.png")):
        try:
            _read(path)
            found.append(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            index.report("damaged", path, f"not an image ({error})")
    return found


def _read(path: Path) -> Image.Image:
    """Return the middle of an image, as large as the figure shows it."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))


def _draws(facts: dict[str, Any]) -> str:
    return " ".join(facts["draw"].split())


def _runs(facts: dict[str, Any], found: list[DrawnPrompt], index: RunIndex) -> Table:
    return Table(
        caption="Runs of the images",
        columns=["Subject", "Prompt", *facts["methods"].values()],
        lines=[
            Line(
                cells=[
                    one.subject,
                    one.folder + ("" if one.papers else " (ours)"),
                    *(
                        Shown(
                            text=f"seed {one.images[method][0].seed}",
                            link=link(index.root, one.images[method][0].run_dir),
                        )
                        if method in one.images
                        else Shown(text="not run", tone="not-run")
                        for method in facts["methods"]
                    ),
                ]
            )
            for one in found
        ],
        heads=2,
    )


def _draw(facts: dict[str, Any], found: list[DrawnPrompt]) -> Figure:
    columns = {"photo": "Photo", **facts["methods"]}
    figure = style.blank(2.1 * len(columns) + 2.2, 2.1 * len(found) + 0.4)
    places = figure.subplots(len(found), len(columns), squeeze=False)
    for line, one in zip(places, found, strict=True):
        shown = {"photo": one.photo} | {method: path for method, (_, path) in one.images.items()}
        for axes, column in zip(line, columns, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color(style.GRID)
            if shown.get(column) is None:
                axes.set_box_aspect(1)
                axes.text(0.5, 0.5, "not run", ha="center", va="center", color=style.PAPER)
            else:
                axes.imshow(np.asarray(_read(shown[column])))
        words = style.literal(f"{one.subject}\n{_wrap(one.folder)}")
        line[0].set_ylabel(words, fontsize=9, color=style.INK, rotation=0, ha="right", va="center")
    for axes, named in zip(places[0], columns.values(), strict=True):
        axes.set_title(named, fontsize=12, color=style.INK)
    figure.tight_layout()
    return figure


def _wrap(folder: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(folder.replace("-", " "), 22))
