"""Write docs/claims.md anew from finished runs: `python docs/claims.py [OUTPUTS]`."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from experiments.report.comparison import run_index  # noqa: E402
from experiments.report.pages import paper_claims  # noqa: E402
from experiments.report.render import text  # noqa: E402
from experiments.report.render.document import Prose  # noqa: E402

MADE = (
    "Made by `python docs/claims.py`, which found {} finished runs: the paper's tables and "
    "figures take GPU hours. `python -m experiments.report claims` makes the same page of your "
    "runs."
)

if __name__ == "__main__":
    outputs = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS.parent / "outputs"
    index = run_index.collect(outputs)
    page = paper_claims.show(index)
    page.blocks.insert(0, Prose(MADE.format(len(index.runs) or "no")))
    (DOCS / "claims.md").write_text(text.markdown(page), encoding="utf-8")
