"""The paper's claims on base models that it does not have.

A claim that compares settings of one base model can be asked of any other. The reference of its
table or figure is transferred to that network: the printed numbers go, the sizes stay, and where a
claim is about equally many parameters, FourierFT's size follows LoRA's. Only runs of pretrained
weights count, and of each task those that share rows, epochs and settings of the task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from experiments.report.comparison import names, paired
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.subsets import CUTS

SCALINGS = {"method.scaling": (None, "plain", "norm")}
"""Scalings of FourierFT: recipes of other networks may set the update's norm."""
HOW_LONG = ("train.epochs", "train.max_steps")
CONSTANT = "no setting is told to be above a constant answer"
"""Words for rows on which nothing was learned: settings are level there, which says little."""


@dataclass(kw_only=True)
class NetworkClaim:
    """A claim of the paper, asked of another base model."""

    page: str
    model: str
    claim: Claim
    says: str
    """Its words without the paper's base models and sizes, where they name them."""
    rows: str = ""
    """Rows and epochs that its runs were trained on."""
    untested: list[str] = field(default_factory=list)
    """Columns, panels and rows of the claim that were not run."""

    def add(self, name: str, claim: Claim) -> None:
        """Add the evidence of a case or panel."""
        if claim.evidence is not None:
            self.claim.parts[name] = claim.evidence
        self.claim.missing += claim.missing
        self.claim.reasons += claim.reasons
        self.claim.reservations += claim.reservations

    def describe_rows(self, chosen: Iterable[Run], tasks: Iterable[str | None]) -> None:
        """Set `rows` to those of the runs on these tasks."""
        wanted = {*tasks}
        self.rows = describe_rows(run for run in chosen if run.record.run["task"] in wanted)


def find_networks(index: RunIndex, own: Iterable[str]) -> Iterator[tuple[str, list[Run]]]:
    """Yield every pretrained base model that the paper's page lacks, with its runs."""
    found: dict[str, list[Run]] = {}
    for run in index.runs:
        said = run.record.run
        trained = run.record.metrics and run.record.environment.get("weights") is not None
        if trained and said["model"] not in own and not said.get("profile"):
            found.setdefault(said["model"], []).append(run)
    yield from sorted(found.items())


def replace_weights(model: str, runs: list[Run]) -> dict[str, Any]:
    """Return what replaces the paper's base models: `weights`, and `cut` rows as they are."""
    marks = {str(run.record.environment["weights"]) for run in runs}
    repository = next((run.values.get("model.repo") for run in runs), None)
    mark = marks.pop() if len(marks) == 1 else None
    return {"weights": {model: {"repo": repository, "fingerprint": mark}}, "cut": CUTS}


def choose_runs(runs: Iterable[Run], find_place: Callable[[Run], Hashable]) -> list[Run]:
    """Return of each task the runs of the conditions that fill most places, then of most runs.

    Of a place they are those of one setting with enough seeds, the nearest to the recipe.

    Args:
        runs: of one base model.
        find_place: function that returns the row or point that a run answers; None for none.
    """
    groups: dict[str, dict[str, list[tuple[Hashable, Run]]]] = {}
    for run in runs:
        place = find_place(run)
        if place is not None:
            alike = {key: value for key, value in run.identity.items() if _is_condition(key)}
            text = json.dumps(alike, sort_keys=True, default=str)
            by_condition = groups.setdefault(run.record.run["task"], {})
            by_condition.setdefault(text, []).append((place, run))
    found = []
    for by_condition in groups.values():
        best = max(by_condition.values(), key=lambda one: (len({at for at, _ in one}), len(one)))
        for place in dict.fromkeys(at for at, _ in best):
            found += _choose_variant([run for at, run in best if at == place])
    return found


def _choose_variant(runs: list[Run]) -> list[Run]:
    """Return the runs of the variant that changes the least, of those with enough seeds if any."""
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(str(run.record.run.get("variant") or ""), []).append(run)

    def order(variant: str) -> tuple[bool, int, str]:
        seeds = {run.seed for run in by_variant[variant]}
        return len(seeds) < paired.SEEDS, variant.count(",") + bool(variant), variant

    return by_variant[min(by_variant, key=order)]


def _is_condition(key: str) -> bool:
    return key.startswith(("model.", "task.")) or key in HOW_LONG


def describe_rows(runs: Iterable[Run]) -> str:
    """Describe rows and epochs of every task: "CoLA: 2000 rows, 3 epochs; RTE: ..."."""
    found: dict[str, list[str]] = {}
    for run in runs:
        values = run.values
        cut = [words.format(values[key]) for key, words in CUTS.items() if values.get(key)]
        epochs = values["train.epochs"]
        text = ", ".join([*(cut or ["all rows"]), f"{epochs:g} epoch{'s' if epochs != 1 else ''}"])
        tasks = found.setdefault(text, [])
        if (name := names.name_task(run.record.run["task"])) not in tasks:
            tasks.append(name)
    return "; ".join(f"{', '.join(tasks)}: {text}" for text, tasks in found.items())
