"""Views of images for a vision model: a random crop for training, the centre for evaluation.

The transformations are those of the paper's image script, which names torchvision's
RandomResizedCrop, RandomHorizontalFlip, Resize and CenterCrop with their defaults; here they are
PIL's. Every random choice comes from a generator that the caller seeds, and views are bytes
(side, side, 3): a quarter of what floats would take to ship, normalised where the network runs.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


AREA = (0.08, 1.0)
"""Share of the image's area that a training crop covers, drawn evenly."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height of a training crop, its logarithm drawn evenly."""
ATTEMPTS = 10
"""Draws before falling back to the largest crop in the middle."""

_ORIENTATION = 0x0112  # EXIF tag: how the camera was held
_DEEP = ("I", "F", "I;")  # modes of more than eight bits a channel


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of an image in whole pixels, mirrored or not."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Box (left, top, right, bottom)."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def draw_crop(width: int, height: int, draw: np.random.Generator) -> Crop:
    """Draw a random crop of a width x height image, mirrored in one of two cases.

    With A the image's area, s from `AREA` and r from `ASPECT`: a crop of sqrt(s A r) by
    sqrt(s A / r) pixels at an even position, the first of `ATTEMPTS` draws that fits. Otherwise
    the middle, as much of it as has an allowed aspect.
    """
    low, high = (math.log(value) for value in ASPECT)
    crop = None
    for _ in range(ATTEMPTS):
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * draw.random())
        aspect = math.exp(low + (high - low) * draw.random())
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int(draw.integers(width - across + 1))
            top = int(draw.integers(height - down + 1))
            crop = left, top, across, down
            break
    if crop is None:
        aspect = min(max(width / height, ASPECT[0]), ASPECT[1])
        across = min(width, max(1, round(height * aspect)))
        down = min(height, max(1, round(width / aspect)))
        crop = (width - across) // 2, (height - down) // 2, across, down
    left, top, across, down = crop
    mirrored = bool(draw.random() < 0.5)
    return Crop(left=left, top=top, width=across, height=down, mirrored=mirrored)


def make_training_view(content: Any, side: int, draw: np.random.Generator) -> np.ndarray:
    """Return a random crop of an encoded image, scaled to side x side: (side, side, 3) uint8.

    A JPEG whose crop is at least twice as large as needed is decoded at a half, a quarter or an
    eighth of its size, several times faster: its pixels are averaged by the decoder instead of by
    the scaling, and differ by 0.3 of 255 levels on the average of twenty photographs.
    """
    import numpy as np
    from PIL import Image

    image = _rotate_upright(Image.open(io.BytesIO(content)))
    width, height = image.size
    crop = draw_crop(width, height, draw)
    factor = _decode_smaller(image, crop, side)
    image = convert_to_rgb(image)
    if factor == 1:
        part = image.crop(crop.box).resize((side, side), Image.Resampling.BILINEAR)
    else:
        left, top, right, bottom = (
            min(edge / factor, limit) for edge, limit in zip(crop.box, image.size * 2, strict=True)
        )
        box = (left, top, right, bottom)
        part = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    if crop.mirrored:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part)


def make_evaluation_view(content: Any, side: int) -> np.ndarray:
    """Return the centre of an encoded image, its shorter side scaled: (side, side, 3) uint8."""
    import numpy as np
    from PIL import Image

    image = convert_to_rgb(_rotate_upright(Image.open(io.BytesIO(content))))
    width, height = image.size
    shorter = min(width, height)
    size = int(side * width / shorter), int(side * height / shorter)
    left, top = (round((length - side) / 2) for length in size)
    image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: grey, palette and CMYK are converted, transparency is dropped."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB PIL would warn
    return image if image.mode == "RGB" else image.convert("RGB")


def find_fault(content: Any) -> str | None:
    """Return the reason why an encoded image cannot be used, or None.

    Cheap for whole JPEG files, which end with a marker, and PNG files, which hold checksums; all
    else is decoded.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content))
        if image.mode.startswith(_DEEP):
            return f"{image.mode} has more than eight bits a channel"
        if image.format == "PNG":
            image.verify()
        elif image.format != "JPEG" or bytes(content[-2:]) != b"\xff\xd9":
            image.load()
    except Image.UnidentifiedImageError:
        return "no image"
    except Exception as error:  # PIL's readers raise many kinds
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _rotate_upright(image: Image.Image) -> Image.Image:
    """Rotate an image as its camera was held; it is decoded only if it must be rotated."""
    from PIL import ImageOps

    turned = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def _decode_smaller(image: Image.Image, crop: Crop, side: int) -> float:
    """Let a JPEG decoder skip details that the crop does not need; return the reduction."""
    width, height = image.size
    enough = math.ceil(width * side / crop.width), math.ceil(height * side / crop.height)
    done = image.draft(None, enough)  # None where nothing can be skipped
    return width / done[1][2] if done is not None else 1
