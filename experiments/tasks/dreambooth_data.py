"""Data of DreamBooth: a subject's photos, class and prompts, and rows of latents."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError
from experiments.files import get_cache_folder
from experiments.hub.fingerprints import Files
from experiments.tasks import image_files

if TYPE_CHECKING:
    from PIL import Image

    from experiments.models.latent_diffusion import LatentSpace


log = logging.getLogger(__name__)

LEVELS = 4
"""Steps at which each photo is scored, evenly spread over the noise schedule."""
NOISE_SEED = 0
"""Seed of that noise."""


class Pairs(Sequence):
    """Training rows: photo and class image number i, each list repeated.

    Without class images a row is a photo. There are as many rows as the longer list has images, or
    `rows` if that is fewer.
    """

    def __init__(
        self,
        photos: list[Image.Image],
        own: list[dict[str, Any]],
        others: list[dict[str, Any]],
        rows: int | None,
    ):
        self.photos, self.own, self.others = photos, own, others
        longest = max(len(own), len(others))
        self.rows = longest if rows is None else min(rows, longest)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        parts = [self.own[row % len(self.own)]]
        if self.others:
            parts.append(self.others[row % len(self.others)])
        return collate(parts)


def encode_images(
    processor: LatentSpace, images: list[Image.Image], prompt: str, *, label: int, weight: float
) -> list[dict[str, Any]]:
    """Encode images as batches of one (see `Denoiser.forward`)."""
    import torch

    means, deviations = processor.encode(images)
    told = {key: value[None] for key, value in processor.told(prompt).items()}
    return [
        {
            "mean": means[place : place + 1],
            "deviation": deviations[place : place + 1],
            "labels": torch.tensor([label]),
            "weights": torch.tensor([weight]),
            **told,
        }
        for place in range(len(images))
    ]


def add_fixed_noise(entries: list[dict[str, Any]], processor: LatentSpace) -> list[dict[str, Any]]:
    """Return each photo at `LEVELS` steps, with noise that is the same for every run."""
    import torch

    last, rows = processor.noise.config.num_train_timesteps, []
    generator = torch.Generator().manual_seed(NOISE_SEED)
    for entry in entries:
        for level in range(LEVELS):
            noise = torch.randn(entry["mean"].shape, generator=generator)
            step = torch.tensor([last * (2 * level + 1) // (2 * LEVELS)])
            rows.append({**entry, "noise": noise, "steps": step})
    return rows


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Join batches along their first dimension."""
    import torch

    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


LISTING = "prompts_and_classes.txt"
"""The data set's file of subjects, their classes and two lists of prompts."""
LIVE = ("cat", "dog")
"""Classes that the second list is for."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Photos, class and prompts of a subject."""

    folder: Path
    class_name: str
    prompts: list[str]
    """Prompts, with {token} and {class_name} to fill in."""
    listing: Path | None = None
    """File that the class or the prompts were read from."""

    @property
    def inputs(self) -> dict[str, Files]:
        """Files of the subject, by kind."""
        found = {f"photos of {self.folder.name}": Files(paths=image_files.list_images(self.folder))}
        if self.listing is not None:
            found["prompts and classes"] = Files(paths=[self.listing])
        return found


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Contents of the file of prompts and classes."""

    classes: dict[str, str]
    objects: list[str]
    live: list[str]


def read_listing(path: Path) -> Listing:
    """Read the data set's file, which is prose around a table and two Python lists.

    Raises:
        DataError: not there, or without one of the three parts.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    table, _, rest = text.partition("Object Prompts")
    classes = dict(re.findall(r"^(\w+),([\w ]+?)\s*$", table, re.M))
    classes.pop("subject_name", None)
    objects, live = (
        [
            prompt.replace("{0}", "{token}").replace("{1}", "{class_name}")
            for prompt in re.findall(r"'([^']+)'\.format", part)
        ]
        for part in (rest.partition("Live Subject")[0], rest.partition("Live Subject")[2])
    )
    found = {"a table of classes": classes, "object prompts": objects, "live prompts": live}
    missing = [f"without {what}" for what, values in found.items() if not values]
    if missing:
        raise DataError(f"{path}: not the data set's list of prompts and classes", missing)
    return Listing(classes=classes, objects=objects, live=live)


def read_subject(
    root: Path, name: str, class_name: str | None, prompts: list[str] | None
) -> Subject:
    """Read a subject in the data set's folder or in its subfolder `dataset`.

    Args:
        root: the folder.
        name: name of the subject.
        class_name: class of the subject; None: the one in the list.
        prompts: prompts to draw; None: those of the list.

    Raises:
        DataError: photos or the needed parts of the list are missing.
    """
    root = root / "dataset" if (root / "dataset" / name).is_dir() else root
    folder = root / name
    if not folder.is_dir():
        known = sorted(item.name for item in root.iterdir() if item.is_dir())
        raise DataError(
            f"task.subject={name}: no such folder in {root} "
            f"(folders there: {', '.join(known) or 'none'})"
        )
    image_files.list_images(folder)
    path = None
    if class_name is None or prompts is None:
        path = root / LISTING
        listing = read_listing(path)
        class_name = class_name or listing.classes.get(name)
        if class_name is None:
            raise DataError(
                f"task.subject={name}: {path} does not say what it is; set task.class_name"
            )
        if prompts is None:
            prompts = listing.live if class_name in LIVE else listing.objects
    return Subject(folder=folder, class_name=class_name, prompts=prompts, listing=path)


def draw_class_images(
    processor: LatentSpace, prompt: str, count: int, how: dict[str, Any]
) -> list[Image.Image]:
    """Draw images of a class with the untouched model, once: they are kept in the cache.

    Args:
        processor: autoencoder and text encoder of the model.
        prompt: prompt of the images.
        count: number of images, of the seeds 0, 1, ...
        how: side, steps and guidance (see `draw`).
    """
    from tqdm import tqdm

    from experiments.models.latent_diffusion import generate_image

    key = json.dumps([processor.name, prompt, how], sort_keys=True)
    folder = get_cache_folder("class_images") / hashlib.sha256(key.encode()).hexdigest()[:16]
    paths = [folder / f"{number:04d}.png" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not image_files.is_whole(path)]
    if missing:
        log.info("drawing %d images of %r with the base model", len(missing), prompt)
        pipeline = processor.pipeline(processor.base().eval()).to(processor.device)
        for number in tqdm(missing, desc="Class images", disable=None):
            image = generate_image(pipeline, prompt, seed=number, **how)
            image_files.save(image, paths[number], prompt=prompt, seed=str(number))
        pipeline.to("cpu")  # which moved the models of the processor itself
    return [image_files.read(path) for path in paths]
