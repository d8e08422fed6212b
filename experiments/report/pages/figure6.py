"""Figure 6: accuracy, F1 and training loss on MRPC by epoch, with equally many parameters."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics.classification import METRICS
from experiments.report.comparison import claims, paired, recipe_match, reference, seed_groups
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.paired import Sample
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.seed_groups import Setting
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages.claim_table import claim_table
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
from experiments.results.history import TRAINING_LOSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.report.plots.training_curves import Curve

KEYS = {"accuracy": "validation/accuracy", "f1": "validation/f1", "loss": TRAINING_LOSS}
"""A panel's key in the runs' histories."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of every seed's curves beside the paper's claims."""
    there = find_settings(facts, index)
    drawn = {
        panel["key"]: {method: _curves(one, panel["key"], index) for method, one in there.items()}
        for panel in facts["panels"]
    }
    found = weigh_claims(facts, there, index)
    told = claims.judge(found)
    summary = claims.summarize(found, told)
    reasons = [reason for one in found for reason in one.reasons]
    blocks: list[Block] = [*heading(facts), Prose(f"**{summary}**")]
    caption = f"What Figure {facts['figure']} claims, and what the runs say"
    blocks.append(claim_table(caption, found, told))
    blocks.append(
        Picture(
            name=name,
            alt=f"{title(facts)}. {summary}",
            caption=f"{title(facts)}. Thin: single seeds, bold: their mean",
            draw=partial(_draw, facts, drawn, reasons),
        )
    )
    blocks += [
        _runs(facts, there, index),
        Prose(f"To run it: `{facts['run']}`. {claims.SEEDS_NEEDED}"),
    ]
    blocks += [Heading("The paper does not say"), Items(facts["unsaid"])]
    blocks += [Heading("Notes"), Items(facts["notes"])]
    blocks += [Heading("How claims are judged"), Prose(claims.RULE)]
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
        verdicts=Counter(one.verdict for one in told),
    )


def find_settings(facts: dict[str, Any], index: RunIndex) -> dict[str, Setting | None]:
    """Return the runs of each method that compare best; None where there are none."""
    runs = [run for run in index.select(task=facts["task"]) if run.record.metrics]
    known, cut, found = reference.weights(facts), facts.get("cut", ()), {}
    for method in facts["series"]:
        wanted = _wanted(facts, method)
        there = seed_groups.group_seeds([run for run in runs if seed_groups.answers(run, wanted)])
        reasons_by_id = {
            id(one): seed_groups.incomparable_reasons(one, None, known, {}, cut) for one in there
        }
        deviations_by_id = {id(one): recipe_match.deviations(one, wanted) for one in there}
        ordered = seed_groups.best(there, reasons_by_id, deviations_by_id)
        found[method] = next(iter(ordered), None)
    return found


def _wanted(facts: dict[str, Any], method: str) -> dict[str, Any]:
    said = facts["series"][method]
    named = {"model": facts["model"], "task": facts["task"], "method": method}
    return named | (said.get("fields") or {}) | {f"method.{said['size']}": said["value"]}


def weigh_claims(
    facts: dict[str, Any], there: dict[str, Setting | None], index: RunIndex
) -> list[Claim]:
    """Set the curves against the figure's claims, one for each panel, epoch by epoch."""
    known, seen = reference.weights(facts), seed_groups.fingerprints(index.runs)
    reasons: list[str] = []
    reservations: list[str] = []
    for method, setting in there.items():
        if setting is not None:
            reasons += seed_groups.incomparable_reasons(
                setting, None, known, seen, facts.get("cut", ())
            )
            papers = "weights" not in facts
            for one in recipe_match.deviations(setting, _wanted(facts, method)) if papers else ():
                (reservations if recipe_match.lacks_recipe(one) else reasons).append(one)
    if (known.get(facts["model"]) or {}).get("fingerprint") is None:
        reservations.append(recipe_match.UNVERIFIED)
    found = []
    for panel in facts["panels"]:
        side = "above" if panel["higher"] else "below"
        claim = Claim(says=f"{panel['label']}: FourierFT {side} LoRA throughout", unit="epochs")
        samples = [_samples(setting, panel["key"], index) for setting in there.values()]
        if all(samples):
            better, worse = samples if panel["higher"] else samples[::-1]
            sides = "FourierFT against LoRA" if panel["higher"] else "LoRA less FourierFT"
            claim.parts = {
                f"{epoch:g}": claims.comparison(
                    f"epoch {epoch:g}, {sides}", better[epoch], worse[epoch]
                )
                for epoch in sorted(better.keys() & worse.keys())
            }
            claim.reasons, claim.reservations = list(reasons), reservations
            for setting, found_here in zip(there.values(), samples, strict=True):
                runs = len(setting.runs) if setting else 0
                fewest = min(len(one.values) for one in found_here.values())
                claim.reasons += paired.name_lost(runs - fewest, runs)
        found.append(claim)
    return found


def _samples(setting: Setting | None, key: str, index: RunIndex) -> dict[float, Sample]:
    """Return the scores of every epoch."""
    values: dict[float, dict[int, float]] = {}
    stored: dict[float, dict[int, tuple[np.ndarray, int]]] = {}
    for seed, run in setting.runs.items() if setting else ():
        steps = {line.get("epoch"): line["step"] for line in index.lines(run) if KEYS[key] in line}
        for epoch, value in index.curve(run, KEYS[key]):
            values.setdefault(epoch, {})[seed] = value
            rows = None
            if key in METRICS:
                rows = paired.resampled(run.run_dir, "validation", steps[epoch], key)
            if rows is not None:
                stored.setdefault(epoch, {})[seed] = rows
    return {
        epoch: Sample(
            values=found,
            rows={seed: rows for seed, (rows, _) in stored.get(epoch, {}).items()},
            count=max((count for _, count in stored.get(epoch, {}).values()), default=0),
        )
        for epoch, found in values.items()
    }


def _curves(setting: Setting | None, key: str, index: RunIndex) -> list[Curve]:
    found = [index.curve(run, KEYS[key]) for run in setting.runs.values()] if setting else []
    return [curve for curve in found if curve]


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
    facts: dict[str, Any], drawn: dict[str, dict[str, list[Curve]]], reasons: list[str]
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
    if reasons:
        figure.text(
            0.99,
            0.95,
            style.literal("; ".join(dict.fromkeys(reasons))),
            ha="right",
            fontsize=9,
            color=style.PAPER,
        )
    return figure
