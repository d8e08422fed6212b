"""Write docs/deviations.md anew: `python docs/deviations.py`."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from experiments.report.pages import deviations  # noqa: E402
from experiments.report.render import text  # noqa: E402

if __name__ == "__main__":
    (DOCS / "deviations.md").write_text(text.markdown(deviations.show()), encoding="utf-8")
