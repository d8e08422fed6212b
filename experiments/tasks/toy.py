"""The toy of Figure 7: eight classes of points in the plane."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from experiments.tasks.task import Data, Head, Task


@dataclass(kw_only=True)
class Toy(Task):
    """Points around `classes` centres with Gaussian noise.

    Trained and scored on the same points, as the figure shows.
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

        draw = np.random.default_rng(self.data_seed)
        angles = 2 * np.pi * np.arange(self.classes) / self.classes
        centres = self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (classes, 2)
        labels = np.repeat(np.arange(self.classes), self.points_per_class)
        points = centres[labels] + self.noise * draw.standard_normal((labels.size, 2))
        order = draw.permutation(labels.size)[: self.train_rows]
        points, labels = points[order].astype(np.float32), labels[order]
        rows = [
            {"points": point, "labels": int(label)}
            for point, label in zip(points, labels, strict=True)
        ]
        return Data(
            train=rows,
            evaluations={"train": rows[: self.eval_rows]},
            collate=_collate,
            fingerprint=hashlib.sha256(points.tobytes() + labels.tobytes()).hexdigest(),
        )


def _collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks points (B, 2) and labels (B,)."""
    import numpy as np
    import torch

    points = torch.from_numpy(np.stack([row["points"] for row in rows]))
    return {"points": points, "labels": torch.tensor([row["labels"] for row in rows])}
