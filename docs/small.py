"""Writes the tables of `make small` into docs/validation.md.

    make small DATA=FOLDER
    python -m experiments.report --outputs outputs/small claims runs
    python docs/small.py outputs/small/report     # keeps its runs and claims in docs/small/
    python docs/small.py                          # the tables anew from there

`tests/test_small_page.py` holds that page and files agree.
"""

from __future__ import annotations

import csv
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.report.comparison import names  # noqa: E402

FOLDER, PAGE = Path(__file__).with_suffix(""), ROOT / "docs" / "validation.md"
TABLE = re.compile(r"(<!-- small (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
RUN = ("model", "task", "method", "variant", "seed", "metric", "learning_rate", "adapter")
RUN = (*RUN, "best", "last", "heldout", "train_s", "record")
CLAIM = ("page", "claim", "network", "evidence", "verdict", "untested")
CUT = re.compile(r"(train_rows|eval_rows|epochs|beams)=\d+,?")
"""Parts of a variant that a task's runs share."""


def keep(report: Path) -> None:
    """Keep runs and claims on other networks of a report."""
    for name, columns in (("runs", RUN), ("claims", CLAIM)):
        lines = [one for one in _read(report / f"{name}.csv") if name == "runs" or one["network"]]
        with (FOLDER / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


def insert_tables(page: str) -> str:
    """Return the page with today's tables between its marks."""
    tables = {"scores": list_scores, "claims": list_claims}
    return TABLE.sub(lambda mark: mark[1] + tables[mark[2]]() + mark[3], page)


def list_scores() -> str:
    """Table of every setting: score of the last epoch, mean and each seed."""
    lines = [
        "| Network and task | Setting | Parameters | Rate | Score | Each seed |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    settings: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for run in _read(FOLDER / "runs.csv"):
        settings.setdefault(tuple(run[key] for key in RUN[:4]), []).append(run)
    for (model, task, method, variant), runs in settings.items():
        runs.sort(key=lambda run: int(run["seed"]))
        scores = [float(run["last"]) for run in runs]
        metric = names.name_metric(runs[0]["metric"])
        differs = ", ".join(filter(None, CUT.sub("", variant).split(",")))
        cells = [
            f"{names.name_model(model)}, {names.name_task(task)} ({metric})",
            names.name_method(method) + f", {differs}" * bool(differs),
            f"{int(runs[0]['adapter']):,}",
            f"{float(runs[0]['learning_rate']):g}",
            f"{statistics.fmean(scores):.3f}",
            ", ".join(f"{score:.3f}" for score in scores),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def list_claims() -> str:
    """Table of the verdicts on the paper's claims."""
    lines = ["| The paper's claim | Evidence | Verdict |", "| --- | --- | --- |"]
    lines += [
        f"| {one['claim']} ({name_page(one['page'])}) | {one['evidence']} | {one['verdict']} |"
        for one in _read(FOLDER / "claims.csv")
    ]
    return "\n".join(lines) + "\n"


def name_page(page: str) -> str:
    """Name of a table or figure: Table 2 for table2."""
    return re.sub(r"(\d+)", r" \1", page).capitalize()


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    if sys.argv[1:]:
        FOLDER.mkdir(exist_ok=True)
        keep(Path(sys.argv[1]))
    PAGE.write_text(insert_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
