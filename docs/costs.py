"""Write docs/costs.md anew: `python docs/costs.py`, a minute."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from experiments.config import sweep  # noqa: E402
from experiments.report import costs, status  # noqa: E402
from experiments.report.render import text  # noqa: E402

if __name__ == "__main__":
    boards = {name: list(status.rows(name, (), DOCS / "none")) for name in sweep.list_experiments()}
    (DOCS / "costs.md").write_text(text.markdown(costs.show(boards)), encoding="utf-8")
