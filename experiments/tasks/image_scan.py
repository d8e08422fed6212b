"""Search for image files below a folder."""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MARKED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "QOI", "TIFF", "WEBP")
"""PIL's image formats that are recognised by their first bytes."""
UNMARKED = ("DIB", "ICO", "PCX", "SGI", "TGA")
"""Formats that are recognised by their endings alone."""

log = logging.getLogger(__name__)


@dataclass
class Scan:
    """Files below a folder, without hidden ones, as macOS leaves them on other disks."""

    images: list[Path] = field(default_factory=list)
    """Image files, sorted by name."""
    unused: list[Path] = field(default_factory=list)
    """All other files."""


@functools.cache
def list_endings() -> frozenset[str]:
    """Return the endings, in lower case, of the formats that PIL reads here."""
    from PIL import Image

    Image.init()
    return frozenset(
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind in MARKED + UNMARKED
    )


def scan(folder: Path) -> Scan:
    """Search a folder and all below it, following links to folders.

    An image is what has the ending of one, or what PIL takes for one whatever its ending.
    """
    found, seen = Scan(), set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [  # not in circles
            name
            for name in folders
            if name[0] != "." and os.path.realpath(os.path.join(place, name)) not in seen
        ]
        for path in (Path(place, name) for name in names if name[0] != "."):
            (found.images if _is_image(path) else found.unused).append(path)
    found.images.sort()
    found.unused.sort()
    return found


def warn_unused(unused: list[Path], where: str) -> None:
    """Warn of unused files, with their number and endings."""
    if unused:
        counts = Counter(path.suffix.lower() or "no ending" for path in unused)
        shown = ", ".join(f"{ending} {count}" for ending, count in counts.most_common(8))
        log.warning(
            "%s: %d files are not used, PIL reads no image there: %s", where, len(unused), shown
        )


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in list_endings():
        return True
    from PIL import Image

    try:
        with Image.open(path, formats=[kind for kind in MARKED if kind in Image.OPEN]):
            return True
    except Exception:  # PIL's readers raise many kinds
        return False
