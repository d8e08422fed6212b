"""Cost and score of every method: trained parameters and time against the score, per task."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.metrics.classification import LOWER_IS_BETTER
from experiments.metrics.selection import RULES
from experiments.report.comparison import names, reference, run_groups, seed_groups
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.seed_groups import Setting
from experiments.report.plots import style
from experiments.report.render.document import (
    RULE_NAMES,
    Block,
    Line,
    Page,
    Picture,
    Prose,
    Ruled,
    Shown,
    Table,
    link,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12
"""Tasks beyond this many are only in the table."""
LONGEST = 48
"""Letters of a panel's title."""
INTRODUCTION = (
    "Every method that was trained, one line per configuration: parameters trained besides the "
    "head, seconds of training, and the mean score over its seeds. **Efficient**: no other "
    "configuration of the same base model, data, metric and rows is at least as good in score and "
    "parameters, or in score and time, and better in one of them. Times of different machines "
    "cannot be compared."
)


@dataclass(kw_only=True)
class Offer:
    """Cost and score of one configuration."""

    setting: Setting
    scores: dict[str, float | None]
    """Mean over seeds, by selection rule."""
    parameters: float
    seconds: float | None
    peak: float | None
    incomparable_reasons: list[str]
    efficient: list[str]
    """Costs (parameters, time) for which no other configuration is better."""

    @property
    def group(self) -> tuple[Any, ...]:
        """Base model, task, data, metric and rows: only offers of one group can be compared."""
        return *run_groups.find_key(self.setting.first), self.cut

    @property
    def title(self) -> str:
        """MiniLM on reviews.csv (text)."""
        model = names.name_model(self.setting.run["model"])
        return f"{model} on {run_groups.name_data(self.setting.first)}"

    @property
    def lower(self) -> bool:
        """True if lower scores are better."""
        return self.setting.first.primary.get("name") in LOWER_IS_BETTER

    @property
    def cut(self) -> tuple[str, ...]:
        """What leaves rows out."""
        values, profile = self.setting.first.values, self.setting.run.get("profile")
        keys = ("task.train_rows", "task.eval_rows")
        cut = [f"{values[key]} {key[5:-5]} rows" for key in keys if values.get(key) is not None]
        return *cut, *([profile] if profile else [])


def show(index: RunIndex) -> Page:
    """Build the page of all trained configurations."""
    offers = _offers(index)
    groups: dict[tuple[Any, ...], list[Offer]] = {}
    for offer in offers:
        groups.setdefault(offer.group, []).append(offer)
    for group in groups.values():
        _mark(group)
    drawn = [group for group in groups.values() if len(group) > 1]
    blocks: list[Block] = [Prose(INTRODUCTION)]
    if drawn:
        blocks.append(
            Picture(
                name="pareto",
                alt="Score against trained parameters and against seconds of training, a row of "
                "two panels for each base model and data; the table below holds the same numbers.",
                caption="Score against trained parameters (left) and training time (right); "
                "filled: efficient",
                draw=partial(_draw, drawn[:PANELS]),
            )
        )
    blocks.append(_table(offers, index))
    if not offers:
        blocks.append(Prose("nothing was trained yet"))
    return Page(
        name="pareto",
        title="Cost and score of all methods",
        blocks=blocks,
        rows=[_raw(offer, index) for offer in offers] or [{"model": None}],
        summary=f"{len(offers)} configurations; base models, tasks and numbers of rows that can "
        f"be compared: {len(groups)}.",
    )


def _offers(index: RunIndex) -> list[Offer]:
    known, seen = reference.weights(), seed_groups.fingerprints(index.runs)
    found, alike = [], run_groups.group_runs(index)
    for setting in itertools.chain.from_iterable(map(seed_groups.group_seeds, alike)):
        runs = list(setting.runs.values())
        metric = runs[0].primary.get("name")
        scores = {
            rule: run_groups.average(run.score(rule, metric) for run in runs) for rule in RULES
        }
        found.append(
            Offer(
                setting=setting,
                scores=scores,
                parameters=runs[0].record.parameters["adapter"],
                seconds=_average_known(run.record.time.get("train_s") for run in runs),
                peak=_average_known(
                    run.record.memory.get("peak_gpu") or run.record.memory.get("peak_rss")
                    for run in runs
                ),
                incomparable_reasons=seed_groups.incomparable_reasons(setting, None, known, seen),
                efficient=[],
            )
        )
    return sorted(found, key=lambda offer: (offer.title, str(offer.group), offer.parameters))


def _average_known(costs: Iterable[float | None]) -> float | None:
    """Return the mean of the costs that were recorded."""
    known = [cost for cost in costs if cost is not None]
    return statistics.fmean(known) if known else None


def _score(offer: Offer) -> float | None:
    """Return the score by the recipe's own rule, signed so that higher is better."""
    score = offer.scores.get(offer.setting.first.primary.get("select"))
    return -score if score is not None and offer.lower else score


def _mark(group: Sequence[Offer]) -> None:
    """Mark the costs for which each configuration is efficient."""
    for name, cost in (
        ("parameters", lambda one: one.parameters),
        ("time", lambda one: one.seconds),
    ):
        there = [one for one in group if _score(one) is not None and cost(one) is not None]
        for offer in there:
            beaten = any(
                _score(other) >= _score(offer)
                and cost(other) <= cost(offer)
                and (_score(other), -cost(other)) != (_score(offer), -cost(offer))
                for other in there
            )
            if not beaten:
                offer.efficient.append(name)


def _table(offers: Sequence[Offer], index: RunIndex) -> Table:
    numbers = ("Parameters", "Seconds", "Peak MB", "Score", "Seeds")
    return Table(
        caption="Cost and score of every configuration",
        columns=("Base model", "Task", "Method", *numbers, "Efficient in", "Configuration"),
        lines=[_line(offer, index) for offer in offers],
        numbers=numbers,
        heads=3,
        filtered=True,
    )


def _line(offer: Offer, index: RunIndex) -> Line:
    run, record = offer.setting.run, link(index.root, offer.setting.first.run_dir)
    primary = offer.setting.first.primary

    def score(rule: str) -> Shown:
        value, own = offer.scores[rule], offer.scores.get(str(primary.get("select")))
        if value is None and own is not None:  # a task that chooses no epoch has one score
            name = RULE_NAMES[primary["select"]].lower()
            return Shown(text=f"{own:.3f}", link=record, tone="muted", note=f"of the {name}")
        return Shown(text="–" if value is None else f"{value:.3f}", link=record)

    return Line(
        cells=[
            run["model"],
            (
                Shown(text=run_groups.name_data(offer.setting.first)),
                *([Shown(text="lower is better", tone="interval")] if offer.lower else []),
            ),
            run["method"],
            f"{offer.parameters:,}",
            "–" if offer.seconds is None else f"{offer.seconds:.1f}",
            "–" if offer.peak is None else f"{offer.peak / 2**20:.0f}",
            Ruled(**{rule: score(rule) for rule in RULES}),
            str(len(offer.setting.runs)),
            ", ".join(offer.efficient),
            "; ".join([offer.setting.label, *offer.incomparable_reasons]),
        ],
        tone="muted" if offer.incomparable_reasons else None,
    )


def _draw(groups: Sequence[Sequence[Offer]]) -> Figure:
    figure = style.blank(8.6, 2.7 * len(groups) + 0.6)
    places = figure.subplots(len(groups), 2, squeeze=False)
    for line, offers in zip(places, groups, strict=True):
        for axes, cost, label in zip(
            line,
            ("parameters", "seconds"),
            ("Trained parameters", "Seconds of training"),
            strict=True,
        ):
            style.style(axes)
            for offer in offers:
                x, score = (
                    getattr(offer, cost),
                    offer.scores.get(offer.setting.first.primary.get("select")),
                )
                if score is None or not x:
                    continue
                method = offer.setting.run["method"]
                colour, _, mark = style.STYLES.get(method, style.OTHER)
                efficient = ("parameters" if cost == "parameters" else "time") in offer.efficient
                axes.plot(
                    [x],
                    [score],
                    marker=mark,
                    markersize=8,
                    linestyle="",
                    color=colour,
                    markerfacecolor=colour if efficient else "none",
                    label=names.name_method(method),
                )
            style.scale_amounts(axes, filter(None, (getattr(offer, cost) for offer in offers)))
            axes.set_xlabel(label, fontsize=10)
            title, cut = offers[0].title, ", ".join(offers[0].cut)
            title = title if len(title) <= LONGEST else f"{title[: LONGEST - 1]}…"
            axes.set_title(style.literal("\n".join(filter(None, (title, cut)))), fontsize=10)
        metric = names.name_metric(offers[0].setting.first.primary.get("name"))
        line[0].set_ylabel(f"{metric} (lower is better)" if offers[0].lower else metric)
    handles: dict[str, Any] = {}
    for axes in places.ravel():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.42 / figure.get_figheight()))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper center",
        ncols=min(6, max(1, len(handles))),
        frameon=False,
        labelcolor=style.INK,
    )
    return figure


def _raw(offer: Offer, index: RunIndex) -> dict[str, Any]:
    run = offer.setting.run
    return {
        **{key: run[key] for key in ("model", "task", "method")},
        "data": run_groups.name_data(offer.setting.first),
        "metric": offer.setting.first.primary.get("name"),
        "configuration": offer.setting.label,
        "parameters": offer.parameters,
        "seconds": offer.seconds,
        "peak_bytes": offer.peak,
        **offer.scores,
        "seeds": len(offer.setting.runs),
        "efficient": " ".join(offer.efficient),
        "obstacles": "; ".join(offer.incomparable_reasons),
        "records": " ".join(index.name(one) for one in offer.setting.runs.values()),
    }
