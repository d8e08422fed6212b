"""Figure 6: accuracy, F1 and training loss on MRPC by epoch, with equally many parameters."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.comparison import reference, seed_groups
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.seed_groups import Setting
from experiments.report.comparison.verdict import Judgement, Verdict
from experiments.report.plots import style, training_curves
from experiments.report.render.document import (
    NOT_RUN,
    Block,
    Heading,
    Items,
    Line,
    Page,
    Picture,
    Prose,
    Shown,
    Table,
    heading,
    link,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.report.plots.training_curves import Curve

KEYS = {"accuracy": "validation/accuracy", "f1": "validation/f1", "loss": "train/loss"}
"""A panel's key in the runs' histories."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of every seed's curves beside the paper's claims."""
    there = {method: _setting(facts, method, index) for method in facts["series"]}
    drawn = {
        panel["key"]: {method: _curves(one, panel["key"], index) for method, one in there.items()}
        for panel in facts["panels"]
    }
    incomparable_reasons = [
        reason
        for setting in there.values()
        if setting is not None
        for reason in seed_groups.incomparable_reasons(
            setting, None, reference.weights(), seed_groups.fingerprints(index.runs)
        )
    ]
    told = [
        (panel, _judge(panel, drawn[panel["key"]], incomparable_reasons))
        for panel in facts["panels"]
    ]
    summary = "; ".join(f"{panel['label']}: {one.verdict.value}" for panel, one in told) + "."
    blocks: list[Block] = [*heading(facts), _verdicts(facts, told)]
    blocks.append(
        Picture(
            name=name,
            alt=f"{title(facts)}. {summary}",
            caption=f"{title(facts)}. Thin: single seeds, bold: their mean",
            draw=partial(_draw, facts, drawn, incomparable_reasons),
        )
    )
    blocks += [_runs(facts, there, index), Prose(f"To run it: `{facts['run']}`")]
    blocks += [Heading("The paper does not say"), Items(facts["unsaid"])]
    blocks += [Heading("Notes"), Items(facts["notes"])]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=[
            {"method": method, "panel": key, "seed": seed, "epoch": epoch, "value": value}
            for key, methods in drawn.items()
            for method, seeds in methods.items()
            for seed, curve in enumerate(seeds)
            for epoch, value in curve
        ]
        or [{"method": None}],
        rule="last",
        summary=summary,
        verdicts=Counter(one.verdict for _, one in told),
    )


def _setting(facts: dict[str, Any], method: str, index: RunIndex) -> Setting | None:
    said = facts["series"][method]
    wanted = {"model": facts["model"], "task": facts["task"], "method": method}
    wanted[f"method.{said['size']}"] = said["value"]
    runs = [run for run in index.select(task=facts["task"]) if run.record.metrics]
    there = seed_groups.group_seeds([run for run in runs if seed_groups.answers(run, wanted)])
    reasons_by_id = {
        id(one): seed_groups.incomparable_reasons(one, None, reference.weights(), {})
        for one in there
    }
    return next(iter(seed_groups.best(there, reasons_by_id)), None)


def _curves(setting: Setting | None, key: str, index: RunIndex) -> list[Curve]:
    found = [index.curve(run, KEYS[key]) for run in setting.runs.values()] if setting else []
    return [curve for curve in found if curve]


def _judge(
    panel: dict[str, Any], drawn: dict[str, list[Curve]], incomparable_reasons: list[str]
) -> Judgement:
    """Judge whether FourierFT is better than LoRA at every epoch at which both were evaluated."""
    if not all(drawn.values()):
        return Judgement(verdict=Verdict.not_run)
    ours, theirs = (
        dict(zip(*training_curves.band(seeds)[:2], strict=True)) for seeds in drawn.values()
    )
    shared = sorted(ours.keys() & theirs.keys())
    sign = 1 if panel["higher"] else -1
    held = [sign * (ours[epoch] - theirs[epoch]) > 0 for epoch in shared]
    words = f"in {sum(held)} of {len(held)} epochs"
    if incomparable_reasons:
        reason = "; ".join([words, *dict.fromkeys(incomparable_reasons)])
        return Judgement(verdict=Verdict.not_comparable, reason=reason)
    verdict = Verdict.reproduced if held and all(held) else Verdict.not_reproduced
    return Judgement(verdict=verdict, reason=words)


def _verdicts(facts: dict[str, Any], told: list[tuple[dict[str, Any], Judgement]]) -> Table:
    return Table(
        caption=f"What Figure {facts['figure']} claims, and what the runs say",
        columns=["The paper's claim", "Verdict"],
        lines=[
            Line(
                cells=[
                    f"{panel['label']}: FourierFT {'above' if panel['higher'] else 'below'} LoRA "
                    "throughout",
                    Shown(
                        text=f"**{one.verdict.value}**"
                        + (f" ({one.reason})" if one.reason else ""),
                        tone=one.verdict.tone,
                    ),
                ]
            )
            for panel, one in told
        ],
    )


def _runs(facts: dict[str, Any], there: dict[str, Setting | None], index: RunIndex) -> Table:
    lines = []
    for method, setting in there.items():
        name = facts["series"][method]["name"]
        if setting is None:
            lines.append(Line(cells=[name, NOT_RUN, ""], tone=Verdict.not_run.tone))
            continue
        seeds = tuple(
            Shown(text=str(seed), link=link(index.root, run.run_dir))
            for seed, run in setting.runs.items()
        )
        lines.append(Line(cells=[name, seeds, setting.label]))
    return Table(caption="Runs behind the curves", columns=["Method", "Seeds", "Runs"], lines=lines)


def _draw(
    facts: dict[str, Any], drawn: dict[str, dict[str, list[Curve]]], incomparable_reasons: list[str]
) -> Figure:
    figure = style.blank(10.2, 3.5)
    for axes, panel in zip(figure.subplots(1, len(facts["panels"])), facts["panels"], strict=True):
        style.style(axes)
        for method, seeds in drawn[panel["key"]].items():
            colour, line, _ = style.STYLES[method]
            label = facts["series"][method]["name"] + ("" if seeds else ": not run")
            axes.plot([], [], color=colour, linestyle=line, linewidth=2.4, label=label)
            for curve in seeds:
                axes.plot(*zip(*curve, strict=True), color=colour, linewidth=0.8, alpha=0.4)
            if seeds:
                epochs, mean, _, _ = training_curves.band(seeds)
                axes.plot(epochs, mean, color=colour, linestyle=line, linewidth=2.4)
        seen = chain.from_iterable(
            curve for seeds in drawn[panel["key"]].values() for curve in seeds
        )
        values = [value for _, value in seen] + [panel["ticks"][0], panel["ticks"][-1]]
        axes.set_ylim(min(values), max(values) * 1.02)
        axes.set_xlim(0, facts["epochs"][-1])
        axes.set_xticks(np.asarray(facts["epochs"])[::2])
        axes.set_xlabel("Epoch", fontsize=11)
        axes.set_title(panel["label"], fontsize=12)
    handles, labels = axes.get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.0, 1, 0.88))
    figure.legend(
        handles,
        labels,
        loc="upper left",
        ncols=2,
        frameon=False,
        fontsize=11,
        labelcolor=style.INK,
    )
    if incomparable_reasons:
        figure.text(
            0.99,
            0.95,
            style.literal("; ".join(dict.fromkeys(incomparable_reasons))),
            ha="right",
            fontsize=9,
            color=style.PAPER,
        )
    return figure
