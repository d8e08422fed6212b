"""Rows of latents: photos of a subject beside images of its class, and photos at fixed noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from experiments.denoising import LatentSpace

LEVELS = 4
"""Steps at which each photo is scored, evenly spread over the noise schedule."""
NOISE_SEED = 0
"""Of that noise."""


class Pairs:
    """Training rows: photo and class image number i, each list from its start again.

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

    def __getitem__(self, row: int) -> dict[str, Any]:
        parts = [self.own[row % len(self.own)]]
        if self.others:
            parts.append(self.others[row % len(self.others)])
        return collate(parts)


def entries_of(
    processor: LatentSpace, images: list[Image.Image], prompt: str, *, label: int, weight: float
) -> list[dict[str, Any]]:
    """Images as batches of one, see `Denoiser.forward`."""
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


def at_fixed_noise(entries: list[dict[str, Any]], processor: LatentSpace) -> list[dict[str, Any]]:
    """Each photo at `LEVELS` steps, with noise that is the same for every run."""
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
    """Joins batches along their first dimension."""
    import torch

    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
