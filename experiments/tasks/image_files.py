"""Image files: reading a folder, writing drawn images, and a sheet of all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import DataError
from experiments.tasks import image_scan

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "images"
SUBJECT = "subject"
"""Folder, beside those of the prompts, with the photos that were trained on."""
GRID = "grid.png"

_MARGIN = 6  # pixels


def make_slug(text: str) -> str:
    """Return a folder name for a prompt."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:100]


def save(image: Image.Image, path: Path, **about: str) -> None:
    """Write a PNG atomically, so that an existing file is complete.

    Args:
        image: image to write.
        path: file to write.
        **about: metadata of the file: prompt, seed.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in about.items():
        info.add_itxt(key, text)
    path.parent.mkdir(exist_ok=True)  # without parents: the folder of a run may be taken away
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    image.save(draft, format="PNG", pnginfo=info)
    os.replace(draft, path)


def read(path: Path) -> Image.Image:
    """Read an image in RGB, rotated as its camera was held."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def is_whole(path: Path) -> bool:
    """Return True if the image can be read; a power cut may leave an empty file."""
    try:
        read(path)
    except Exception:  # PIL's readers raise many kinds
        return False
    return True


def list_images(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted by name.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = image_scan.scan(folder).images
    if not found:
        raise DataError(f"{folder}: holds no image")
    return found


def read_folder(folder: Path) -> list[Image.Image]:
    """Read every image below a folder; a warning counts other files.

    Raises:
        DataError: see `list_images`, or images that cannot be read, each with its reason.
    """
    from PIL import Image

    images, damaged = [], []
    for path in list_images(folder):
        try:
            images.append(read(path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            damaged.append(f"{path.relative_to(folder)}: {error}")
    image_scan.warn_unused(image_scan.scan(folder).unused, str(folder))
    if damaged:
        raise DataError(f"{folder}: images that cannot be read", damaged)
    return images


def crop_square(image: Image.Image, side: int) -> Image.Image:
    """Cut out the largest square around the middle, and resize it."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def draw_grid(
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    photos: Sequence[Image.Image],
    side: int = 160,
) -> Image.Image:
    """Draw a sheet with one row per prompt: a photo of the subject, the prompt, the images.

    Args:
        rows: prompt and its images.
        photos: photos of the subject; the rows take turns.
        side: pixels of an image on the sheet.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    step, head, words = side + _MARGIN, 26, side + 40
    drawn = max(len(images) for _, images in rows)
    width = _MARGIN + step + words + drawn * step
    sheet = Image.new("RGB", (width, head + len(rows) * step + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for left, title in ((0, "photo"), (step, "prompt"), (step + words, "drawn")):
        pen.text((left + _MARGIN, _MARGIN), title, "black", font)
    for place, (prompt, images) in enumerate(rows):
        top = head + place * step
        sheet.paste(photos[place % len(photos)].resize((side, side)), (_MARGIN, top))
        text = _wrap_text(prompt, words - 3 * _MARGIN, small.getlength)
        pen.multiline_text((step + _MARGIN, top), text, "black", small)
        for column, image in enumerate(images):
            left = _MARGIN + step + words + column * step
            sheet.paste(image.resize((side, side)), (left, top))
    return sheet


def _wrap_text(text: str, width: int, length: Callable[[str], float]) -> str:
    """Wrap a text into lines of at most `width` pixels; longer words stay whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
