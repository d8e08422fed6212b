"""A table of the paper as its reference lays it out: rows, columns, printed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JUDGE = "gpt-4"
"""The paper's judge, as the judge's files name it; its version is not said."""
ABSENT = "this project does not have the method"


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column of the paper's table is about."""

    key: str
    name: str
    task: str | None
    metric: str | None = None
    split: str | None = None
    """None: the record's primary one."""
    judged: str | None = None
    """Benchmark whose answers a judge grades, instead of a metric."""
    judge: str | None = None
    """The paper's judge."""
    scale: float = 1.0
    """Ours times this is in the table's unit."""
    lower: bool = False
    """True if less is better."""
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper's table."""

    place: int
    model: str | None
    method: str | None
    """None if this project does not have it."""
    label: str
    """The method as the table calls it, with its size."""
    model_label: str
    fields: dict[str, Any]
    """What a run must have, with dotted keys."""
    facts: dict[str, Any]

    @property
    def unavailable(self) -> str | None:
        """Why no configuration gives the row."""
        return self.facts.get("unavailable", ABSENT if self.method is None else None)


def columns(facts: dict[str, Any]) -> list[Column]:
    """The columns of a table's reference."""
    given = facts.get("columns")
    names, metrics = facts.get("names", {}), facts.get("metrics")
    if given is None and "benchmarks" in facts:  # a judge's grades of one task's answers
        given = [
            {"key": key, "task": facts["task"], "name": name, "judged": key, "judge": JUDGE}
            for key, name in facts["benchmarks"].items()
        ]
    elif given is None and "task" in facts:  # the metrics of one task
        parts = facts.get("in_percent", ())
        given = [
            {
                "key": metric,
                "task": facts["task"],
                "name": names.get(metric, metric),
                "metric": metric,
                "split": facts.get("split"),
                "scale": 100 if metric in parts else 1,
            }
            for metric in metrics
        ]
    elif given is None:  # a task each
        given = [
            {
                "key": task,
                "task": task,
                "name": names.get(task, task),
                "metric": metrics[task] if isinstance(metrics, dict) else facts["metric"],
            }
            for task in facts["order"]
        ]
    scale = facts.get("scale", 100 if str(facts.get("unit", "")).startswith("per cent") else 1)
    return [
        Column(
            **{"scale": scale, "name": column["key"], **column, "digits": _digits(facts, column)}
        )
        for column in given
    ]


def _digits(facts: dict[str, Any], column: dict[str, Any]) -> int:
    """Digits after the point, the most that any cell of the column has."""
    values = [pair(row, column["key"]) for row in facts["rows"]]
    numbers = [part for value in values for part in value if part is not None]
    return max((len(str(value).partition(".")[2].rstrip("0")) or 1 for value in numbers), default=1)


def pair(row: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    """Value and printed spread of a cell, however the reference writes it."""
    cells = row.get("cells", row.get("results", row))
    cell = cells.get(key)
    if isinstance(cell, dict):
        return cell.get("value"), cell.get("std", cell.get("spread"))
    if isinstance(cell, (list, tuple)):
        return cell[0], cell[1] if len(cell) > 1 else None
    return cell, None


def rows(facts: dict[str, Any]) -> Iterator[Row]:
    """The rows of a table's reference, in its order."""
    methods, models = facts.get("methods", {}), facts.get("models", {})
    for place, entry in enumerate(facts["rows"], 1):
        method = entry.get("method")
        about = methods.get(method) or {}
        size = about.get("size")
        value = entry.get(size, about.get("value")) if size else None
        fields = dict(entry.get("fields", about.get("fields", {})))
        label = entry.get("name") or entry.get("printed_name") or about.get("name") or str(method)
        if value is not None:
            fields[f"method.{size}"] = value
            label += f", {size}={value}"
        elif method is None and entry.get("printed"):
            label += f", {entry['printed']}"
        named = models.get(entry["model"]) or {}
        yield Row(
            place=place,
            model=named.get("config", entry["model"]),
            method=about.get("config", method),
            label=label,
            model_label=named.get("name", str(entry.get("base", entry["model"]))),
            fields=fields,
            facts=entry,
        )
