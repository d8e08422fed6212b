"""Claims of the paper on one page: its own numbers, the evidence here, and the verdict."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison import (
    cells,
    claims,
    figure_claims,
    reference,
    table_claims,
    toy_runs,
)
from experiments.report.comparison.cells import PaperCell
from experiments.report.comparison.panels import read_panels
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.verdict import Judgement, Verdict
from experiments.report.pages import (
    figure6,
    figure7,
    other_networks,
    score_vs_size,
    table1,
    text_numbers,
)
from experiments.report.pages.claim_table import (
    describe_claim,
    list_untested,
    say_verdict,
    show_verdict,
)
from experiments.report.render.document import Cell, Heading, Line, Page, Prose, Shown, Table, title

COLUMNS = ("The paper's claim", "Its own numbers", "Evidence here", "Verdict", "Not tested")
IMAGE = "an image"
OWN_NUMBERS = (
    "**Its own numbers.** **yes** or **no**: the numbers that the paper prints bear the claim out "
    "or speak against it. Neither they nor its misprints enter the verdict. A **doubtful cell** "
    "is a printed number that is probably not what it should be, for example another in the "
    "authors' logs or copied from another setting; its table's page marks it (?) and says why."
)
OF_COUNTS = ("table1", "text")
"""Pages about counts of parameters, which need no training."""
OF_FIGURES = ("figure1", "figure4", "figure5", "figure6", "figure7")
OF_COUNTED = (Verdict.not_reproduced, Verdict.reproduced, Verdict.not_comparable, Verdict.not_run)
"""Verdicts on counts; the first that one of them has is the claim's."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim of the paper with all that is known about it."""

    page: str
    place: str
    says: str
    words: str | None
    """The paper's."""
    printed: str
    """What the paper's own numbers say."""
    printed_verdict: Verdict | None = None
    """Supported or contradicted by them; None if they say neither."""
    evidence: str
    judgement: Judgement
    untested: str
    partial: bool = False
    """True if the verdict holds for the tested part alone."""


def show(index: RunIndex) -> Page:
    """Build the page of all claims."""
    found, told = find_findings(index, fill_tables(index))
    elsewhere = other_networks.find_claims(index)
    counts = Counter(one.judgement.verdict for one in found)
    against = sum(one.printed_verdict is Verdict.contradicted for one in found)
    order = list(Verdict)
    worded = Counter(
        say_verdict(one.judgement, one.partial)
        for one in sorted(found, key=lambda one: order.index(one.judgement.verdict))
    )
    told_here = "; ".join(f"{count} {words}" for words, count in worded.items())
    summary = (
        f"{len(found)} claims, {against} of them contradicted by the paper's own numbers; "
        f"here: {told_here}."
    )
    return Page(
        name="claims",
        title="Claims of the paper",
        blocks=[
            Prose(f"**{summary}**"),
            Table(
                caption="The paper's claims, by table and figure",
                columns=(*COLUMNS, *(("Other networks",) if elsewhere else ())),
                lines=[_line(one, elsewhere) for one in found],
                cards=True,
            ),
            Prose(f"Claims of tables: {told}"),
            *other_networks.show(elsewhere),
            Heading("How claims are judged"),
            Prose(OWN_NUMBERS),
            Prose(claims.RULE),
        ],
        rows=[*map(_raw, found), *other_networks.list_raw(elsewhere)],
        summary=summary,
        verdicts=counts,
    )


Fill = Callable[[str], tuple[dict[str, Any], Sequence[PaperCell]]]


def fill_tables(index: RunIndex) -> Fill:
    """Return a function that fills a table once and returns its reference and cells."""

    @functools.cache
    def fill(name: str) -> tuple[dict[str, Any], Sequence[PaperCell]]:
        facts = reference.load_table(name)
        return facts, cells.fill(facts, index)

    return fill


def find_findings(index: RunIndex, fill: Fill) -> tuple[list[Finding], str]:
    """Return every claim, those of counts and tables first, and a sentence on those of tables."""
    of_tables = list(table_claims.read_claims(fill))
    weighed = [one.ours for one in of_tables]
    judgements = claims.judge(weighed)
    found = [_of_table(*pair) for pair in zip(of_tables, judgements, strict=True)]
    for name in OF_FIGURES:
        found += _of_figure(name, index)
    return [*_of_counts(index), *found], claims.summarize(weighed, judgements)


def _of_table(claim: table_claims.TableClaim, judgement: Judgement) -> Finding:
    printed = claim.printed.evidence
    own, verdict = "not printed", None
    if printed is not None:
        doubts = len(claim.doubts)
        held = sum(one.holds for one in claim.printed.parts.values())
        words = [
            f"holds in {held} of {len(claim.printed.parts)} cases",
            claims.describe(printed),
            "" if claim.spread is None else f"printed ± up to {claim.spread:g}",
            f"{doubts} doubtful cell{'s' * (doubts > 1)}" if doubts else "",
        ]
        own = "; ".join(filter(None, words))
        verdict = Verdict.supported if printed.holds else Verdict.contradicted
    facts = claim.facts
    return Finding(
        page=facts["page"],
        place=f"{facts['place']}, Table {facts['page'].removeprefix('table')}",
        says=facts["says"],
        words=facts["words"],
        printed=own,
        printed_verdict=verdict,
        judgement=judgement,
        evidence=describe_claim(claim.ours, judgement),
        untested="; ".join(list_untested(claim.ours, "cells")),
    )


def _of_figure(name: str, index: RunIndex) -> Iterator[Finding]:
    facts = reference.load(name)
    if name == "figure7":
        runs, _ = toy_runs.find(facts, index)
        judgement = figure7.judge(facts, runs)
        claim = facts["claim"].strip()
        untested = "" if runs else "all of it"
        yield _finding(name, facts, claim, IMAGE, judgement, judgement.reason, untested)
        return
    if name == "figure6":
        found = figure6.weigh_claims(facts, figure6.find_settings(facts, index), index)
        own = [IMAGE] * len(found)
    else:
        panels = list(read_panels(facts, index))
        found = score_vs_size.weigh_claims(facts, panels)
        known = (figure_claims.describe_known(claim, panels) for claim in facts["claims"])
        own = [f"{IMAGE}; {told}" if told else IMAGE for told in known]
    words = {one["says"]: one.get("words") for one in facts.get("claims", ())}
    for claim, printed, judgement in zip(found, own, claims.judge(found), strict=True):
        yield _finding(
            name,
            facts,
            claim.says,
            printed,
            judgement,
            describe_claim(claim, judgement),
            "; ".join(list_untested(claim, "points")),
            words=words.get(claim.says),
        )


def _finding(
    name: str,
    facts: dict[str, Any],
    says: str,
    printed: str,
    judgement: Judgement,
    evidence: str,
    untested: str,
    *,
    words: str | None = None,
    partial: bool = False,
) -> Finding:
    return Finding(
        page=name,
        place=title(facts).partition(":")[0],
        says=says,
        words=words,
        printed=printed,
        judgement=judgement,
        evidence=evidence,
        untested=untested,
        partial=partial,
    )


def _of_counts(index: RunIndex) -> Iterator[Finding]:
    """Yield Table 1 and the text's shares, whose pages say more."""
    pages = ((table1.show, _sound_counts), (text_numbers.show, _sound_shares))
    for name, (page, sound) in zip(OF_COUNTS, pages, strict=True):
        facts = reference.load(name)
        built = page(name, facts, index)
        verdict = next(one for one in OF_COUNTED if built.verdicts.get(one))
        missing = built.verdicts.get(Verdict.not_run, 0)
        yield _finding(
            name,
            facts,
            " ".join(facts["claim"].split()),
            sound(built),
            Judgement(verdict=verdict),
            built.summary,
            f"{missing} not run" if missing else "",
            partial=bool(missing) and verdict is Verdict.reproduced,
        )


def _sound_counts(page: Page) -> str:
    same = sum(row["count_printed_is_formula"] for row in page.rows)
    return f"{same} of {len(page.rows)} printed counts are the formula's"


def _sound_shares(page: Page) -> str:
    found = Counter(row["misprint"] for row in page.rows)
    right = len(page.rows) - found[text_numbers.COUNTS_DIFFER]
    return (
        f"{right} of {len(page.rows)} shares are what its printed counts give; of "
        f"{found[text_numbers.NOT_FORMULAS]}, the {text_numbers.NOT_FORMULAS}"
    )


def _line(one: Finding, elsewhere: Sequence[other_networks.Judged]) -> Line:
    claim = (
        Shown(text=one.says, link=f"page:{one.page}", note=one.words),
        Shown(text=f"({one.place})", tone="muted"),
    )
    own: Cell = Shown(text=one.printed, tone="muted")
    if one.printed_verdict is not None:
        holds = "yes" if one.printed_verdict is Verdict.supported else "no"
        own = (Shown(text=f"**{holds}**", tone=one.printed_verdict.tone), one.printed)
    verdict = show_verdict(one.judgement, one.partial)
    cells: list[Any] = [claim, own, one.evidence, verdict, one.untested or "–"]
    if elsewhere:
        cells.append(other_networks.show_verdicts(elsewhere, one.page, one.says) or "–")
    return Line(cells=cells)


def _raw(one: Finding) -> dict[str, Any]:
    """One line of the csv file."""
    return {
        "page": one.page,
        "place": one.place,
        "claim": one.says,
        "words": one.words,
        "printed": one.printed,
        "printed_verdict": one.printed_verdict and one.printed_verdict.value,
        "evidence": one.evidence,
        "verdict": say_verdict(one.judgement, one.partial),
        "reason": one.judgement.reason,
        "untested": one.untested,
        "network": None,
    }
