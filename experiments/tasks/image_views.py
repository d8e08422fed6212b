"""Views of images as inputs of a network, decoded on access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError
from experiments.tasks import image_transforms
from experiments.tasks.image_folder import Labelled

if TYPE_CHECKING:
    import numpy as np


class Undecodable(DataError):
    """An image that looked whole and is not.

    Out of a loader process torch raises it once more, with a traceback as its message, of which
    the end counts.
    """

    def __init__(self, summary: str):
        super().__init__(summary.strip().rpartition(f"{type(self).__name__}: ")[2])


class Views(Sequence):
    """Rows of a split as inputs of a network, decoded on access.

    Args:
        source: the images.
        rows: indices of the images.
        side: side of a view, in pixels.
        augmented: row `key` is a random view of image `key % len`, decided by `key` alone.
    """

    def __init__(self, source: Labelled, rows: np.ndarray, side: int, augmented: bool):
        self.source, self.rows, self.side, self.augmented = source, rows, side, augmented

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        """Return `pixel_values` (side, side, 3) uint8 and `labels`, a class number."""
        if key >= len(self) and not self.augmented:
            raise IndexError(key)
        import numpy as np

        row = self.rows[key % len(self)]
        content = self.source.contents[row]
        try:
            if self.augmented:
                draw = np.random.default_rng(key)
                pixels = image_transforms.make_training_view(content, self.side, draw)
            else:
                pixels = image_transforms.make_evaluation_view(content, self.side)
        except Exception as error:  # PIL's readers raise many kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Undecodable(f"{self.source.places[row]}: cannot be decoded ({reason})") from error
        return {"pixel_values": pixels, "labels": self.source.labels[row]}


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack pixel_values (B, side, side, 3) uint8 and, where there are, labels (B,)."""
    import numpy as np
    import torch

    batch = {"pixel_values": torch.from_numpy(np.stack([row["pixel_values"] for row in rows]))}
    if "labels" in rows[0]:
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    return batch
