"""Draws docs/contests.png and writes the tables of docs/contests/*.json into docs/validation.md.

    python -m experiments.contest NAME …                # writes outputs/.contests/NAME.json
    cp outputs/.contests/NAME.json docs/contests/
    python docs/contests.py

The picture has one panel per contest: the score of every trial of FourierFT with the first seed
over the share of |W| by which one step moves DeltaW (median layer), and LoRA's best trial.
`tests/test_contest_page.py` holds that page and files agree.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.contest import results  # noqa: E402
from experiments.report.plots import style  # noqa: E402

FOLDER, PAGE = Path(__file__).with_suffix(""), ROOT / "docs" / "validation.md"
MARK = "<!-- contest {name} -->\n{text}<!-- end -->"
MARKS = {
    "FourierFT from zero": ("#0072B2", "-", "o"),
    "FourierFT from normal": ("#CC79A7", "-.", "^"),
    "LoRA r=8": ("#D55E00", (0, (4, 1.5)), "s"),
}


def read_results() -> list[dict[str, Any]]:
    """Results in docs/contests/, by name."""
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]


def insert_tables(page: str, found: list[dict[str, Any]]) -> str:
    """Return the page with today's tables between its marks."""
    for result in found:
        text = MARK.format(name=result["contest"], text=results.render(result))
        pattern = MARK.format(name=re.escape(result["contest"]), text=".*?")
        page, number = re.subn(pattern, lambda _, text=text: text, page, flags=re.S)
        if number != 1:
            raise SystemExit(f"{PAGE.name}: {number} places for {result['contest']} (needed: 1)")
    return page


def draw(found: list[dict[str, Any]]) -> None:
    """Draw docs/contests.png."""
    figure = style.blank(4.2 * len(found), 3.9)
    for axes, result in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        style.style(axes)
        for name, (color, line, mark) in MARKS.items():
            trials = [
                one for one in result["trials"] if one["contestant"] == name and one["first_seed"]
            ]
            points = sorted((one["step"] or 0.0, statistics.fmean(one["halves"])) for one in trials)
            if not points:
                continue
            if name.startswith("LoRA"):
                values = [value for _, value in points]
                best = min(values) if result["lower_is_better"] else max(values)
                axes.axhline(best, color=color, ls=line, label=f"{name}, best trial")
            else:
                axes.plot(*zip(*points, strict=True), color=color, ls=line, marker=mark, label=name)
        axes.set_xscale("log")
        axes.set_title(result["title"].partition(",")[0], fontsize=12)
        axes.set_xlabel("|update of one step| / |W|", fontsize=11)
        better = "lower" if result["lower_is_better"] else "higher"
        axes.set_ylabel(f"{result['metric'].replace('_', ' ')} ({better} is better)", fontsize=11)
        axes.legend(fontsize=9, frameon=False)
    figure.tight_layout()
    figure.savefig(FOLDER.with_suffix(".png"), metadata={"Software": None})


if __name__ == "__main__":
    everything = read_results()
    PAGE.write_text(insert_tables(PAGE.read_text(encoding="utf-8"), everything), encoding="utf-8")
    draw(everything)
