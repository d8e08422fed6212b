"""Draws docs/contests.png and writes the tables of docs/contests/*.json into docs/validation.md.

    python -m experiments.contest NAME …                # writes outputs/.contests/NAME.json
    cp outputs/.contests/NAME.json docs/contests/
    python docs/contests.py

The page asks for tables across contests with marks: `<!-- compare A less B -->` for all contests
with both settings, `<!-- steps -->` for the scores of FourierFT by the size of a step.

The picture has a panel for each contest, the score of every trial of FourierFT with the first seed
over the share of |W| by which one step moves DeltaW (median layer), and the best trial of LoRA. A
contest with losses on another text has a second panel: those losses over the score of every trial.
`tests/test_contest_page.py` holds that page and files agree.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.contest import results  # noqa: E402
from experiments.report.comparison import names  # noqa: E402
from experiments.report.plots import style  # noqa: E402

FOLDER, PAGE = Path(__file__).with_suffix(""), ROOT / "docs" / "validation.md"
MARK = "<!-- contest {name} -->\n{text}<!-- end -->"
COMPARED = re.compile(r"(<!-- compare (.+?) less (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
STEPS = re.compile(r"(<!-- steps -->\n).*?(<!-- end -->)", re.DOTALL)
MARKS = {
    "FourierFT from zero": ("#0072B2", "-", "o"),
    "FourierFT from normal": ("#CC79A7", "-.", "^"),
    "FourierFT relative": ("#009E73", (0, (6, 1, 1, 1)), "v"),
    "LoRA r=8": ("#D55E00", (0, (4, 1.5)), "s"),
    "LoRA r=1": ("#666666", ":", "D"),
}
"""Colour, line and mark of the settings that are drawn."""
WORST = 2.1
"""Losses above this multiple of the base model's are not drawn."""


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
    page = COMPARED.sub(lambda mark: mark[1] + compare(found, mark[2], mark[3]) + mark[4], page)
    return STEPS.sub(lambda mark: mark[1] + list_steps(found) + mark[2], page)


def compare(found: list[dict[str, Any]], setting: str, less: str) -> str:
    """Table of the contests that have two settings; means over the seeds that both have."""
    lines = [
        f"| Network and task | Score | {setting} | {less} | Difference |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for result in found:
        there = {one["name"]: one["seeds"] for one in result["contestants"]}
        if setting in there and less in there:
            pair = there[setting], there[less]
            seeds = pair[0].keys() & pair[1].keys()
            cells = [
                name_task(result),
                name_metric(result),
                *(results.format_score(average(seeds, one)) for one in pair),
                results.format_difference(find_difference(result, setting, less)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def average(seeds: Iterable[str], scores: dict[str, float | None]) -> float | None:
    """Mean of the scores of some seeds; None if one diverged."""
    found = [scores[seed] for seed in seeds]
    return None if None in found else statistics.fmean(found)


def find_difference(result: dict[str, Any], setting: str, less: str) -> dict[str, Any]:
    """Difference of two settings, of which neither or the second is the contest's reference."""
    if less == result["reference"]:
        return next(one["difference"] for one in result["contestants"] if one["name"] == setting)
    for one in result["pairs"]:
        if (one["setting"], one["less"]) == (setting, less):
            return one["difference"]
        if (one["setting"], one["less"]) == (less, setting):
            turned, interval = one["difference"], one["difference"]["interval"]
            interval = None if interval is None else [-interval[1], -interval[0]]
            value = None if turned["value"] is None else -turned["value"]
            return turned | {"value": value, "interval": interval}
    raise KeyError(f"{result['contest']}: {setting} less {less}")


def list_steps(found: list[dict[str, Any]]) -> str:
    """Table of the scores of FourierFT with the first seed, by share of |W| that a step moves."""
    lines = ["| Network and task | Setting | Step: score |", "| --- | --- | --- |"]
    for result in found:
        for one in result["contestants"]:
            trials = sorted(list_trials(result, one["name"]), key=lambda trial: trial["rate"])
            scores = [statistics.fmean(one) for one in map(get_halves, trials) if one]
            best = (min if result["lower_is_better"] else max)(scores, default=None)
            told = []
            for trial in trials:
                if trial["step"] is not None:
                    halves = get_halves(trial)
                    score = statistics.fmean(halves) if halves else None
                    bold = "**" * (halves is not None and score == best)
                    told.append(f"{trial['step']:.1%}: {bold}{results.format_score(score)}{bold}")
            if told:
                lines.append(f"| {name_task(result)} | {one['name']} | {'; '.join(told)} |")
    return "\n".join(lines) + "\n"


def get_halves(trial: dict[str, Any]) -> list[float] | None:
    """Scores of a trial on the two halves of the rows; None if it diverged."""
    return None if None in trial["halves"] else trial["halves"]


def name_task(result: dict[str, Any]) -> str:
    """Network and task of a contest, from its title."""
    return str(result["title"]).partition(",")[0]


def draw(found: list[dict[str, Any]]) -> None:
    """Draw docs/contests.png."""
    panels = [(draw_steps, one) for one in found]
    panels += [(draw_outside, one) for one in found if "outside" in one]
    rows = -(-len(panels) // 2)
    figure = style.blank(9.6, 4.0 * rows)
    places = figure.subplots(rows, 2, squeeze=False).flat
    for axes, (draw_panel, result) in zip(places, panels, strict=False):
        style.style(axes)
        draw_panel(axes, result)
        axes.legend(fontsize=9, frameon=False)
    for axes in list(places)[len(panels) :]:
        axes.remove()
    figure.tight_layout()
    figure.savefig(FOLDER.with_suffix(".png"), metadata={"Software": None})


def draw_steps(axes: Any, result: dict[str, Any]) -> None:
    """Draw the scores of a contest over the size of a step."""
    for name, (color, line, mark) in MARKS.items():
        points = [
            (trial["step"] or 0.0, statistics.fmean(halves))
            for trial in list_trials(result, name)
            if (halves := get_halves(trial))
        ]
        if points and name.startswith("LoRA"):
            values = [value for _, value in points]
            best = min(values) if result["lower_is_better"] else max(values)
            axes.axhline(best, color=color, ls=line, label=f"{name}, best trial")
        elif points:
            points.sort()
            axes.plot(*zip(*points, strict=True), color=color, ls=line, marker=mark, label=name)
    axes.set_xscale("log")
    axes.set_title(name_task(result), fontsize=12)
    axes.set_xlabel("|update of one step| / |W|", fontsize=11)
    axes.set_ylabel(name_metric(result), fontsize=11)


def draw_outside(axes: Any, result: dict[str, Any]) -> None:
    """Draw the losses on another text over the scores, from the lowest rate to the highest."""
    outside = result["outside"]
    losses = {
        (one["contestant"], one["rate"], one["seed"]): one["loss"] for one in outside["losses"]
    }
    for name, (color, line, mark) in MARKS.items():
        points = [
            (statistics.fmean(trial["halves"]), losses[key])
            for trial in sorted(list_trials(result, name), key=lambda trial: trial["rate"])
            if (key := (name, trial["rate"], trial["seed"])) in losses and get_halves(trial)
        ]
        highest = WORST * outside["base"]
        points = [point for point in points if point[1] is not None and point[1] <= highest]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, ls=line, marker=mark, label=name)
    axes.axhline(outside["base"], color="#999999", lw=1, label="before training")
    axes.set_title(f"{result['title'].partition(' on ')[0]}, another text", fontsize=12)
    axes.set_xlabel(name_metric(result), fontsize=11)
    axes.set_ylabel("loss on the other text", fontsize=11)


def list_trials(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Trials of a setting with the first seed."""
    return [one for one in result["trials"] if one["contestant"] == name and one["first_seed"]]


def name_metric(result: dict[str, Any]) -> str:
    """Name of a contest's metric, with its better direction."""
    better = "lower" if result["lower_is_better"] else "higher"
    return f"{names.name_metric(result['metric'])} ({better} is better)"


if __name__ == "__main__":
    everything = read_results()
    PAGE.write_text(insert_tables(PAGE.read_text(encoding="utf-8"), everything), encoding="utf-8")
    draw(everything)
