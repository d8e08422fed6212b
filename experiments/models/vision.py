"""Image classifiers: ViT and DINOv2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError
from experiments.models.transformer import Transformer, classes
from experiments.results.identity import BEFORE

if TYPE_CHECKING:
    from torch import nn

    from experiments.models.head import Head


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """Input of a vision model: (value / 255 - mean) / std per channel, `side` x `side` pixels."""

    side: int
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(kw_only=True)
class VisionTransformer(Transformer):
    """ViT with a linear classifier on its first token, or DINOv2 on it and the others' mean."""

    mean: list[float]
    """Subtracted from each colour channel, in shares of full brightness, where the weights' own
    preprocessor_config.json does not say."""
    std: list[float]
    """Each colour channel's divisor, likewise."""
    side: int | None = field(default=None, metadata={BEFORE: None})
    """Side of the images in pixels, for DINOv2, which interpolates its positions; null: the side in
    the weights' configuration."""

    def problems(self) -> Iterator[str]:
        """See `Model.problems`."""
        yield from super().problems()
        for key, fits in (("mean", lambda value: True), ("std", lambda value: value > 0)):
            values = getattr(self, key)
            if len(values) != 3 or not all(map(fits, values)):
                kind = "positive numbers" if key == "std" else "numbers"
                yield f"model.{key}={values}: must be three {kind}"
        if self.side is None:
            return
        patch = self.sizes.get("patch_size", 14)
        if self.architecture != "dinov2":
            yield f"model.side={self.side}: model={self.name} has fixed positions (allowed: null)"
        elif self.side < patch or self.side % patch:
            yield f"model.side={self.side}: must be a multiple of {patch}, the side of a patch"

    def processor(self, source: str | None, *, device: str = "auto") -> ImageFormat:
        """Return the side that the network was built for, and the mean and std of its weights."""
        side, said = self.side, self._preparation(source)
        if side is None:
            side = self.configuration(source).image_size
        try:
            mean, std = (list(said.get(f"image_{key}", getattr(self, key))) for key in _SCALES)
            if said.get("do_normalize") is False:
                mean, std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
            fits = len(mean) == len(std) == 3 and all(float(value) > 0 for value in std)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            wrong = {key: said.get(f"image_{key}") for key in _SCALES}
            raise DataError(
                f"{self._place(source)}: invalid preprocessor_config.json",
                [f"image_{key}={value!r}: must be three numbers" for key, value in wrong.items()],
            )
        return ImageFormat(side=side, mean=mean, std=std)

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """See `Model.build`; images may come as floats or, cheaper to move, as bytes."""
        from transformers import AutoModel, AutoModelForImageClassification

        from experiments.models.image_input import accept_bytes

        if head.kind == "none":
            return self.network(AutoModel, source, meta)
        net = self.network(AutoModelForImageClassification, source, meta, **classes(head))
        pixels = self.processor(source)
        return accept_bytes(net, pixels.mean, pixels.std)

    def _preparation(self, source: str | None) -> dict[str, Any]:
        """Return the contents of the weights' preprocessor_config.json, empty if there is none."""
        from transformers.utils import cached_file

        if source is None:
            return {}
        name = "preprocessor_config.json"
        try:
            path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
            return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        except Exception as error:  # a damaged file and a failing hub raise many kinds
            raise DataError(f"{self._place(source)}: {name} cannot be read ({error})") from error


_SCALES = ("mean", "std")
