"""Writes the pictures of the report in docs/ anew: `python tests/screenshots.py`."""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import browser  # noqa: E402
from records import five_hundred_runs  # noqa: E402

from experiments.config.compose import compose_config, register  # noqa: E402
from experiments.config.load import load_config  # noqa: E402
from experiments.report.__main__ import main  # noqa: E402

PICTURES = (
    ("report_overview", "index", 1100, 900, "light"),
    ("report_table2", "table2", 1100, 900, "light"),
    ("report_table2_dark", "table2", 1100, 900, "dark"),
    ("report_phone", "table2", 390, 800, "light"),
)


def write_pictures(folder: Path) -> None:
    """Writes the report of five hundred made-up runs, and what Chromium shows of it."""
    register()
    outputs = folder / "outputs"
    five_hundred_runs(outputs, lambda *words: load_config(compose_config(list(words))))
    main(["--outputs", str(outputs)])
    with browser.driver() as address:
        tab = browser.Browser(address, folder / "profile")
        for name, page, width, height, scheme in PICTURES:
            tab.shape(width, height, scheme, mobile=width < 500)
            tab.open(outputs / f"report/{page}.html")
            tab.run("document.querySelector('main .table')?.scrollIntoView()")
            time.sleep(0.3)  # a frame after the last layout
            (ROOT / f"docs/{name}.png").write_bytes(tab.picture())
        tab.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        write_pictures(Path(place))
