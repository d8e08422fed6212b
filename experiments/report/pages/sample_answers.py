"""Figures 8 and 9: answers of stored runs to one question, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.errors import RecordError
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.seed_groups import order_naturally
from experiments.report.render.document import (
    Block,
    Heading,
    Items,
    Line,
    Page,
    Prose,
    Shown,
    Table,
    heading,
    link,
    title,
)
from experiments.results import fastchat, generations

LONGEST = 8000
"""Characters of an answer that are shown."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Stored answer of a run."""

    run: Run
    question: str
    text: str
    grades: list[dict[str, Any]]
    """Averages of judges over all questions of the benchmark."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of a question's stored answers."""
    found = read_answers(facts, index)
    papers = [one for one in found if _is_papers(one.run, facts)]
    others = [one for one in found if one not in papers]
    methods = {one.run.record.run["method"] for one in papers}
    summary = f"{len(methods)} of the paper's {len(facts['methods'])} models have answered"
    summary += f"; answers of other models: {len(others)}." if others else "."
    blocks: list[Block] = [*heading(facts), Prose(f"**{summary}**")]
    asked = next((one.question for one in found if one.question), None)
    if asked:
        blocks.append(_table("The question", ["Question"], [[_verbatim(asked)]]))
    for caption, part in (("The paper's models", papers), ("Other models", others)):
        blocks += [Heading(caption)] if part else []
        for model in dict.fromkeys(one.run.record.run["model"] for one in part):
            mine = [one for one in part if one.run.record.run["model"] == model]
            blocks.append(_answers(mine, facts, index))
    if len(methods) < len(facts["methods"]):
        blocks.append(
            Prose(f"To run it: `{facts['run']} QUESTIONS=FOLDER`, FastChat's folder of questions.")
        )
    blocks += [Heading("Notes"), Items(facts["notes"])]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=[
            {
                **{key: one.run.record.run.get(key) for key in ("model", "method", "variant")},
                "seed": one.run.seed,
                "question": facts["question"],
                "answer": one.text,
                "record": index.name(one.run),
            }
            for one in found
        ]
        or [{"model": None}],
        rule="last",
        summary=summary,
    )


def read_answers(facts: dict[str, Any], index: RunIndex) -> list[Answer]:
    """Return the answer of every model, method and variant, of its first seed that has one."""
    found: dict[tuple[Any, ...], Answer] = {}
    for run in sorted(index.runs, key=lambda run: order_naturally(run.seed)):
        said = run.record.run
        key = tuple(said.get(part) for part in ("model", "method", "variant", "profile"))
        if key not in found and (answer := _read(run, facts, index)) is not None:
            found[key] = answer
    order = list(facts["methods"])
    return sorted(
        found.values(),
        key=lambda one: (
            not _is_papers(one.run, facts),
            one.run.record.run["model"],
            order.index(method) if (method := one.run.record.run["method"]) in order else 9,
        ),
    )


def _read(run: Run, facts: dict[str, Any], index: RunIndex) -> Answer | None:
    path = generations.get_path(run.run_dir, facts["benchmark"])
    damaged: list[str] = []
    try:
        lines = generations.read(path, damaged)
    except RecordError as error:
        lines, damaged = [], [str(error)]
    for problem in damaged:
        index.report("damaged", path, problem)
    for line in lines:
        turns = fastchat.get_first_choice(line)
        if line.get("question_id") == facts["question"] and turns is not None:
            asked = line.get("asked")
            return Answer(
                run=run,
                question=asked[0] if fastchat.are_texts(asked) else "",
                text=turns[0][:LONGEST],
                grades=index.judged(run, facts["benchmark"]),
            )
    return None


def _is_papers(run: Run, facts: dict[str, Any]) -> bool:
    said = run.record.run
    named = said["model"] == facts["model"] and said["method"] in facts["methods"]
    return named and not said.get("profile")


def _answers(part: list[Answer], facts: dict[str, Any], index: RunIndex) -> Table:
    """Return a column for each answer of one model."""
    said = [one.run.record.run for one in part]
    names = [facts["methods"].get(one["method"], one["method"]) for one in said]
    columns = [
        ", ".join(filter(None, (name, one.get("variant") or one.get("profile"))))
        for name, one in zip(names, said, strict=True)
    ]
    runs = [
        Shown(text=f"seed {one.run.seed}", link=link(index.root, one.run.run_dir)) for one in part
    ]
    grades = [
        "; ".join(f"{grade['average']:.2f} by {grade['judge']}" for grade in one.grades)
        for one in part
    ]
    lines = [
        ["Run", *runs],
        ["Grade, all questions", *(grade or "not judged" for grade in grades)],
        ["Answer", *(_verbatim(one.text) for one in part)],
    ]
    return _table(said[0]["model"], ["", *columns], lines)


def _table(caption: str, columns: list[str], lines: list[list[Any]]) -> Table:
    return Table(
        caption=caption,
        columns=columns,
        lines=[Line(cells=cells) for cells in lines],
        heads=1 if len(columns) > 1 else 0,
    )


def _verbatim(text: str) -> Shown:
    return Shown(text=text, tone="verbatim")
