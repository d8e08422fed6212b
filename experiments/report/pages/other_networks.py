"""Claims of the paper on base models that it does not have: part of the page of claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.report.comparison import (
    claims,
    names,
    reference,
    transferred_figures,
    transferred_tables,
)
from experiments.report.comparison.other_networks import (
    SCALINGS,
    NetworkClaim,
    choose_runs,
    find_networks,
    replace_weights,
)
from experiments.report.comparison.points import get_wanted
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.seed_groups import answers
from experiments.report.comparison.verdict import Judgement, Verdict
from experiments.report.pages import figure6
from experiments.report.pages.claim_table import (
    describe_claim,
    list_untested,
    say_verdict,
    show_verdict,
)
from experiments.report.render.document import Block, Heading, Line, Prose, Shown, Table

Judged = tuple[NetworkClaim, Judgement]
RULE = (
    "The same claims, asked of base models that the paper does not have, at the sizes that it "
    "prints. Of each task all runs of a network have the same rows and epochs, which are named; "
    "columns, panels and sizes that were not run are left out of a claim and named, and a verdict "
    "then holds as far as it was tested. These verdicts are "
    "about the claims alone: no number is compared with a printed one. A claim that compares two "
    "base models is not tested. Of several settings of one size the nearest to the network's "
    "recipe counts; what it changes is named, and so is a task on which no setting is told to be "
    "above a constant answer (the most frequent class, a correlation of 0): settings are level "
    "there, which says little. Holm's correction is over the claims of a network."
)


def find_claims(index: RunIndex) -> list[Judged]:
    """Return every claim that runs of other base models speak to, with its verdict."""
    found = [*transferred_tables.ask_tables(index), *transferred_figures.ask_figures(index)]
    found += _ask_figure6(index)
    told: list[Judged] = []
    for model in sorted({one.model for one in found}):
        mine = [one for one in found if one.model == model]
        told += zip(mine, claims.judge([one.claim for one in mine]), strict=True)
    return told


def _ask_figure6(index: RunIndex) -> Iterator[NetworkClaim]:
    """Yield Figure 6's claims: LoRA of rank 1, and FourierFT with as many parameters."""
    facts = reference.load("figure6")
    free = {"method": "fourierft", **SCALINGS}
    lora = get_wanted("lora", facts["series"]["lora"], facts["series"]["lora"]["value"])
    for model, runs in find_networks(index, {facts["model"]}):
        runs = [run for run in runs if run.record.run["task"] == facts["task"]]
        numbers = {_count(run) for run in runs if answers(run, lora)}

        def find_place(run: Run, numbers: set[Any] = numbers) -> str | None:
            method = run.record.run["method"]
            fits = answers(run, lora) or answers(run, free)
            return method if fits and _count(run) in numbers else None

        chosen = choose_runs(runs, find_place)
        sizes = [run.values["method.n"] for run in chosen if answers(run, free)]
        if len(sizes) in (0, len(chosen)):
            continue  # of one of the two methods alone
        said = {**facts["series"]["fourierft"], "value": sizes[0], "fields": SCALINGS}
        series = facts["series"] | {"fourierft": said}
        moved = {**facts, **replace_weights(model, runs), "model": model, "series": series}
        mine = RunIndex(index.root, chosen)
        settings = figure6.find_settings(moved, mine)
        for claim in figure6.weigh_claims(moved, settings, mine):
            if claim.parts:
                asked = NetworkClaim(page="figure6", model=model, claim=claim, says=claim.says)
                asked.describe_rows(chosen, [facts["task"]])
                yield asked


def _count(run: Run) -> Any:
    return run.values.get("parameters.adapter")


def show(found: Sequence[Judged]) -> Iterator[Block]:
    """Yield the section of all claims on other base models; nothing without any."""
    if found:
        yield Heading("On other networks", "networks")
        yield Prose(RULE)
        yield Table(
            caption="The paper's claims on base models that it does not have",
            columns=("The paper's claim", "Network", "Evidence", "Verdict", "Not tested"),
            lines=[_line(*one) for one in found],
            cards=True,
        )


def show_verdicts(found: Sequence[Judged], page: str, says: str) -> tuple[Shown, ...]:
    """Return the verdicts of other networks on a claim, for its line among the paper's."""
    return tuple(
        Shown(
            text=f"{names.name_model(one.model)}: **{say_verdict(told, _is_partial(one, told))}**",
            tone=told.verdict.tone,
            link="#networks",
        )
        for one, told in found
        if (one.page, one.claim.says) == (page, says)
    )


def _line(one: NetworkClaim, told: Judgement) -> Line:
    return Line(
        cells=[
            Shown(text=one.says, link=f"page:{one.page}"),
            f"{names.name_model(one.model)} ({one.rows})",
            describe_claim(one.claim, told),
            show_verdict(told, _is_partial(one, told)),
            _untested(one),
        ]
    )


def _is_partial(one: NetworkClaim, told: Judgement) -> bool:
    return bool(one.untested) and told.verdict in (Verdict.supported, Verdict.contradicted)


def _untested(one: NetworkClaim) -> str:
    words = [*one.untested, *list_untested(one.claim, "cells or points")]
    return "; ".join(dict.fromkeys(words)) or "–"


def list_raw(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return the lines of the csv file."""
    return [
        {
            "page": one.page,
            "claim": one.claim.says,
            "evidence": describe_claim(one.claim, told),
            "verdict": say_verdict(told, _is_partial(one, told)),
            "reason": told.reason,
            "untested": _untested(one),
            "network": f"{names.name_model(one.model)} ({one.rows})",
        }
        for one, told in found
    ]
