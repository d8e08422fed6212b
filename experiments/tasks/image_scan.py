"""Image files below a folder, told from all else that lies there."""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MARKED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "QOI", "TIFF", "WEBP")
"""PIL's formats of pictures whose first bytes tell them from other files."""
UNMARKED = ("DIB", "ICO", "PCX", "SGI", "TGA")
"""Those that their endings tell."""

log = logging.getLogger(__name__)


@dataclass
class Scan:
    """What lies below a folder; hidden files, as macOS leaves them on other disks, are nothing."""

    images: list[Path] = field(default_factory=list)
    """In the order of their names."""
    unused: list[Path] = field(default_factory=list)
    """All other files."""


@functools.cache
def endings() -> frozenset[str]:
    """Endings, in lower case, of the formats that PIL reads here."""
    from PIL import Image

    Image.init()
    return frozenset(
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind in MARKED + UNMARKED
    )


def scan(folder: Path) -> Scan:
    """Look through a folder and all below it, links to folders followed.

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
    """Say how many files are not used, and of what endings."""
    if unused:
        counts = Counter(path.suffix.lower() or "no ending" for path in unused)
        shown = ", ".join(f"{ending} {count}" for ending, count in counts.most_common(8))
        log.warning(
            "%s: %d files are not used, PIL reads no image there: %s", where, len(unused), shown
        )


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in endings():
        return True
    from PIL import Image

    try:
        with Image.open(path, formats=[kind for kind in MARKED if kind in Image.OPEN]):
            return True
    except Exception:  # PIL's readers raise many kinds
        return False
