"""Frechet distance between two sets of images: FID with Inception's features, or a stand-in.

Not by torchmetrics, clean-fid or torch-fidelity: they need torchvision, whose binaries must match
torch's exactly, or unpickle what they download.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.device import select_device
from experiments.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features."""

    mean: np.ndarray
    """Mean, float64 (d,)."""
    factor: np.ndarray
    """Factor (m, d) with m <= d; factor^T factor is the unbiased covariance."""
    count: int
    """Number of images."""


def compute_moments(features: np.ndarray) -> Moments:
    """Compute the moments of features (n, d), n at least 2."""
    import numpy as np

    count, width = features.shape
    if count < 2:
        raise DataError(f"a covariance needs at least 2 images, found {count}")
    features = features.astype(np.float64)
    mean = features.mean(0)
    factor = (features - mean) / np.sqrt(count - 1)
    if count > width:
        factor = np.linalg.qr(factor, mode="r")
    return Moments(mean, factor, count)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), FID (Heusel et al. 2017, Eq. 6).

    With C1 = A^T A and C2 = B^T B the trace of the root is the sum of the singular values of A B^T.
    No root of a matrix is taken: with fewer images than features those covariances are singular,
    and the usual iteration then returns complex or infinite values.

    Estimates from few images are biased upwards; compare equal numbers of images only.
    """
    import numpy as np

    shared = np.linalg.svd(first.factor @ second.factor.T, compute_uv=False).sum()
    spread = (first.factor**2).sum() + (second.factor**2).sum() - 2 * shared
    return float(((first.mean - second.mean) ** 2).sum() + max(spread, 0.0))


@dataclass(frozen=True)
class PixelFeatures:
    """Features of 8 x 8 colours per image, for rehearsals; never comparable with FID."""

    side = 8

    @property
    def description(self) -> dict[str, Any]:
        """Description of the features for the record."""
        return {"extractor": "pixels", "features": 3 * self.side**2, "weights_sha256": None}

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the mean colours of an 8 x 8 grid, (N, 192) in [0, 1]."""
        import numpy as np
        from PIL import Image

        small = [image.resize((self.side, self.side), Image.Resampling.BOX) for image in images]
        return np.stack([np.asarray(image, np.float64).ravel() / 255 for image in small])


@dataclass(frozen=True)
class InceptionFeatures:
    """Features of FID from Inception.

    Raises:
        DataError: the file is not there, not safetensors, or not InceptionV3's weights.
    """

    weights: Path
    """State dict of `experiments.metrics.inception.Inception`, as safetensors."""
    device: str = "auto"
    """`train.device`."""

    def __post_init__(self) -> None:
        import torch
        from safetensors import SafetensorError, safe_open

        from experiments.metrics import inception

        if self.weights.suffix != ".safetensors":
            raise DataError(
                f"{self.weights}: Inception's weights must be a .safetensors file",
                ["a pickle or TorchScript file may hold code; if you trust it, convert it once:"]
                + ['save_file(torch.load(path, weights_only=True), "inception.safetensors")'],
            )
        try:
            with safe_open(self.weights, "pt") as file:
                names = file.keys()  # not a mapping
                found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.weights}: no weights can be read there ({error})") from error
        with torch.device("meta"):
            expected = inception.Inception().state_dict()
        wrong = [
            f"{name}: found {found.get(name, 'nothing')}, expected {tuple(value.shape)}"
            for name, value in expected.items()
            if found.get(name) != tuple(value.shape) and not name.endswith("num_batches_tracked")
        ]
        if wrong:
            rest = [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
            raise DataError(f"{self.weights}: not InceptionV3's weights", [*wrong[:5], *rest])

    @property
    def description(self) -> dict[str, Any]:
        """Description of the features for the record."""
        from experiments.metrics import inception

        with self.weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "extractor": "inception",
            "features": inception.FEATURES,
            "weights_sha256": digest,
        }

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the pooled features (N, 2048)."""
        import numpy as np
        import torch
        from safetensors.torch import load_file

        from experiments.metrics import inception

        device = select_device(self.device)
        net = inception.Inception()
        net.load_state_dict(load_file(self.weights), strict=False)
        net.eval().to(device)
        found = []
        with torch.no_grad():
            for image in images:  # one by one: their sizes may differ, and there are few
                pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
                found.append(net(pixels[None].to(device) / 255).double().cpu().numpy())
        return np.concatenate(found)


Extractor = PixelFeatures | InceptionFeatures

METRICS = ("fid", "frechet_pixels")
"""Metrics, by their features: `fid` uses Inception's alone."""


def compute_distance(
    extractor: Extractor, drawn: Sequence[Image.Image], real: Sequence[Image.Image]
) -> float:
    """Return the Frechet distance of drawn from real images; warns if they are few."""
    first, second = (compute_moments(extractor.features(images)) for images in (drawn, real))
    width = len(first.mean)
    if min(first.count, second.count) <= width:
        log.warning(
            "%s: the Frechet distance of %d drawn and %d real images is biased upwards "
            "(%d features); compare it with values of as many images only",
            *(extractor.description["extractor"], first.count, second.count, width),
        )
    return frechet_distance(first, second)
