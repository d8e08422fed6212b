"""Writes the pictures of docs/report.md anew: `python tests/screenshots.py OUTPUTS`.

OUTPUTS holds real runs: those of `make quickstart` and of contests. Nothing in it is changed.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import browser  # noqa: E402
from PIL import Image  # noqa: E402

from experiments.report.__main__ import main  # noqa: E402

PICTURES = (
    ("report_overview", "index", "main h1", 1300, 1200, "light"),
    ("report_table1", "table1", "main h1", 1100, 900, "light"),
    ("report_phone", "index", "main h1", 390, 800, "dark"),
    ("report_update", "runs/*--fourierft--*", ".updates", 800, 1010, "light"),
)
"""Name, page, element at the top, width, height and color scheme."""


def find_page(report: Path, page: str) -> Path:
    """The page, or the first of several, those of runs whose update is drawn before others."""
    found = sorted(report.glob(f"{page}.html"))
    return min(found, key=lambda path: not path.with_suffix("").is_dir())


def write_pictures(outputs: Path, folder: Path) -> None:
    """Writes a report of the runs to a folder, and what Chromium shows of it."""
    main(["--outputs", str(outputs), "--to", str(folder / "report")])
    with browser.driver() as address:
        tab = browser.Browser(address, folder / "profile")
        for name, page, top, width, height, scheme in PICTURES:
            tab.shape(width, height, scheme, mobile=width < 500)
            tab.open(find_page(folder / "report", page))
            tab.run("document.querySelector(arguments[0]).scrollIntoView()", top)
            time.sleep(0.3)  # a frame after the last layout
            seen = Image.open(io.BytesIO(tab.picture())).convert("RGB")
            seen.quantize(256).save(ROOT / f"docs/{name}.png", optimize=True)
        tab.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/screenshots.py OUTPUTS")
    with tempfile.TemporaryDirectory() as place:
        write_pictures(Path(sys.argv[1]), Path(place))
