"""The toy of Figure 7: eight classes of points in the plane."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.files import replace_file
from experiments.models.head import Head
from experiments.tasks.task import Data, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

REGIONS = "regions.npz"
"""File in a run's folder: the classes of the plane."""
SIDE = 241
"""Points of the plane's grid in each direction."""


@dataclass(kw_only=True)
class Toy(Task):
    """Points around `classes` centres with Gaussian noise.

    The figure is about the points that are trained on; as many others are scored beside them, and
    the classes that the network gives to the plane are kept.
    """

    classes: int
    """Number of centres."""
    points_per_class: int
    """Points drawn around each centre."""
    radius: float
    """Distance of the centres from the origin; they stand on a circle at equal angles."""
    noise: float
    """Standard deviation of the points around their centre, per coordinate."""
    data_seed: int
    """Seed of the points: the same data for every method and every run seed."""

    @property
    def head(self) -> Head:
        """Two coordinates in, one score per class out."""
        return Head(kind="points", labels=self.classes, inputs=2)

    @property
    def splits(self) -> list[str]:
        """Scored splits, the primary one first."""
        return ["train", "test"]

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        for key in ("classes", "points_per_class", "radius"):
            if not getattr(self, key) > 0:
                yield f"task.{key}={getattr(self, key)}: must be positive"
        for key in ("noise", "data_seed"):
            if not getattr(self, key) >= 0:
                yield f"task.{key}={getattr(self, key)}: must not be negative"

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        import numpy as np

        points, labels = self._draw(np.random.default_rng(self.data_seed))
        points, labels = points[: self.train_rows], labels[: self.train_rows]
        others = self._draw(np.random.default_rng([self.data_seed, 1]))
        splits = {"train": _make_rows(points, labels), "test": _make_rows(*others)}
        return Data(
            train=splits["train"],
            evaluations={split: rows[: self.eval_rows] for split, rows in splits.items()},
            collate=_collate,
            fingerprint=hashlib.sha256(points.tobytes() + labels.tobytes()).hexdigest(),
        )

    def generate(
        self, net: nn.Module, processor: Any, data: Data, run_dir: Path, seed: int
    ) -> None:
        """Write regions.npz, the network's classes of the plane.

        It holds `classes` (SIDE, SIDE), row by row from below, from -`reach` to `reach` in both
        directions, and the training data `points` (N, 2) and `labels` (N,).
        """
        import numpy as np
        import torch

        reach = self.radius + max(1.0, 4 * self.noise)
        ticks = np.linspace(-reach, reach, SIDE, dtype=np.float32)
        plane = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        device = next(net.parameters()).device
        net.eval()
        with torch.no_grad():
            scores = net(points=torch.from_numpy(plane).to(device))["logits"]
        classes = scores.argmax(-1).cpu().numpy().astype(np.uint8).reshape(SIDE, SIDE)
        batch = _collate(data.train)
        with replace_file(run_dir / REGIONS) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file, classes=classes, reach=reach, points=batch["points"], labels=batch["labels"]
            )

    def _draw(self, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points (N, 2) float32 and labels (N,) in random order."""
        import numpy as np

        angles = 2 * np.pi * np.arange(self.classes) / self.classes
        centres = self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (classes, 2)
        labels: np.ndarray = np.repeat(np.arange(self.classes), self.points_per_class)
        points = centres[labels] + self.noise * draw.standard_normal((labels.size, 2))
        order = draw.permutation(labels.size)
        return points[order].astype(np.float32), labels[order]


def _make_rows(points: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"points": point, "labels": int(label)} for point, label in zip(points, labels, strict=True)
    ]


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack points (B, 2) and labels (B,)."""
    import numpy as np
    import torch

    points = torch.from_numpy(np.stack([row["points"] for row in rows]))
    return {"points": points, "labels": torch.tensor([row["labels"] for row in rows])}
