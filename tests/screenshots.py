"""Writes the pictures of docs/report.md anew: `python tests/screenshots.py OUTPUTS`.

OUTPUTS holds real runs: those of `make quickstart` and of contests. Nothing in it is changed.
"""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import browser  # noqa: E402

from experiments.report.__main__ import main  # noqa: E402

PICTURES = (
    ("report_overview", "index", 1300, 1200, "light"),
    ("report_table1", "table1", 1100, 900, "light"),
    ("report_phone", "index", 390, 800, "dark"),
)
"""Name, page, width, height and color scheme."""


def write_pictures(outputs: Path, folder: Path) -> None:
    """Writes a report of the runs to a folder, and what Chromium shows of it."""
    main(["--outputs", str(outputs), "--to", str(folder / "report")])
    with browser.driver() as address:
        tab = browser.Browser(address, folder / "profile")
        for name, page, width, height, scheme in PICTURES:
            tab.shape(width, height, scheme, mobile=width < 500)
            tab.open(folder / f"report/{page}.html")
            tab.run("document.querySelector('main h1').scrollIntoView()")
            time.sleep(0.3)  # a frame after the last layout
            (ROOT / f"docs/{name}.png").write_bytes(tab.picture())
        tab.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/screenshots.py OUTPUTS")
    with tempfile.TemporaryDirectory() as place:
        write_pictures(Path(sys.argv[1]), Path(place))
