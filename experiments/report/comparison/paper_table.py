"""Table of the paper as in its reference file: rows, columns, printed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison import names

JUDGE = "gpt-4"
"""The paper's judge, as named in the judge's files; the paper does not give its version."""
ABSENT = "this project does not have the method"


@dataclass(frozen=True, kw_only=True)
class Column:
    """Column of the paper's table."""

    key: str
    name: str
    task: str | None
    metric: str | None = None
    split: str | None = None
    """Split; None: the record's primary one."""
    judged: str | None = None
    """Benchmark whose answers a judge grades, instead of a metric."""
    judge: str | None = None
    """The paper's judge."""
    scale: float = 1.0
    """Factor from our scores to the table's unit."""
    lower: bool = False
    """True if lower is better."""
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row of the paper's table."""

    position: int
    model: str | None
    method: str | None
    """None if this project does not have it."""
    label: str
    """Method as named in the table, with its size."""
    model_label: str
    fields: dict[str, Any]
    """Fields that a run must have, with dotted keys."""
    facts: dict[str, Any]

    @property
    def unavailable(self) -> str | None:
        """Reason that no configuration gives the row."""
        return self.facts.get("unavailable", ABSENT if self.method is None else None)


def columns(facts: dict[str, Any]) -> list[Column]:
    """Return the columns of a table."""
    given = facts.get("columns")
    named, metrics = facts.get("names", {}), facts.get("metrics")
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
                "name": named.get(metric, metric),
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
                "name": named.get(task) or names.name_task(task),
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
    """Return the most digits after the decimal point that any cell of the column has."""
    values = [pair(row, column["key"]) for row in facts["rows"]]
    numbers = [part for value in values for part in value if part is not None]
    return max((len(str(value).partition(".")[2].rstrip("0")) or 1 for value in numbers), default=1)


def pair(row: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    """Return value and printed spread of a cell, however the reference writes it."""
    cells = row.get("cells", row.get("results", row))
    cell = cells.get(key)
    if isinstance(cell, dict):
        return cell.get("value"), cell.get("std", cell.get("spread"))
    if isinstance(cell, (list, tuple)):
        return cell[0], cell[1] if len(cell) > 1 else None
    return cell, None


def rows(facts: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of a table, in the order of its reference."""
    methods, models = facts.get("methods", {}), facts.get("models", {})
    for position, entry in enumerate(facts["rows"], 1):
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
            position=position,
            model=named.get("config", entry["model"]),
            method=about.get("config", method),
            label=label,
            model_label=named.get("name", names.name_model(str(entry.get("base", entry["model"])))),
            fields=fields,
            facts=entry,
        )
