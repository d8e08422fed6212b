"""The toy's network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.models.model import Model

if TYPE_CHECKING:
    from torch import nn

    from experiments.models.head import Head


@dataclass(kw_only=True)
class MLP(Model):
    """The toy of Figure 7: points -> width -> width -> classes, ReLU between.

    `hidden` is the 64 x 64 matrix to adapt.
    """

    width: int
    """Rows and columns of the hidden matrix."""

    def problems(self) -> Iterator[str]:
        """See `Model.problems`."""
        yield from super().problems()
        if self.width < 1:
            yield f"model.width={self.width}: must be at least 1"

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """See `Model.build`."""
        import torch

        from experiments.models.point_classifier import PointClassifier

        with torch.device("meta" if meta else "cpu"):
            return PointClassifier(head.inputs, self.width, head.labels)
