"""Results as Markdown, for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def render(result: dict[str, Any]) -> str:
    """Return the tables of a result, section by section."""
    machine = result.get("machine", {})
    lines = [f"Device: {machine.get('gpu') or machine.get('processor')}"]
    if machine.get("dry"):
        lines.append("Dry: tiny shapes on a CPU. The times mean nothing.")
    for name, section in result.items():
        if name == "machine":
            continue
        stopped = f", stopped: {section['stopped']}" if "stopped" in section else ""
        lines += ["", f"### {name} ({section['seconds']:.0f} s{stopped})", ""]
        lines += _table([dict(_cells(row)) for row in section["rows"]])
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield columns and texts of one row: ratios to the first contestant, with their spread."""
    for key, value in row.items():
        if key in ("eager", "replay"):
            mark = "" if key == "eager" else " (replay)"
            for number, (name, found) in enumerate(value.items()):
                yield name + mark, _time(found, number == 0)
        elif key == "counts":
            for name, found in value.items():
                if "operations" in found:
                    syncs = "" if found["syncs"] is None else f" / {found['syncs']}"
                    yield f"{name} (operations / syncs)", f"{found['operations']}{syncs}"
        else:
            yield key, f"{value:.3g}" if isinstance(value, float) else str(value)


def _time(found: dict[str, Any], first: bool) -> str:
    if "error" in found:
        return found["error"].partition(":")[0]
    if first:
        return f"{found['ms']:.3f} ms"
    low, high = found["spread"]
    return f"{found['ratio']:.2f} ({low:.2f}-{high:.2f})"


def _table(rows: list[dict[str, str]]) -> list[str]:
    if not rows:
        return ["Nothing."]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = [[row.get(column, "").replace("|", "/") for column in columns] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *body)]
