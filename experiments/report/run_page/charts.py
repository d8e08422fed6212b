"""Charts for a page's own SVG: lines with ticks, in the reader's colors.

Not by matplotlib: it takes 0.3 s a chart, and a report has hundreds of runs. Its locator places the
ticks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Points = Sequence[tuple[float, float]]

WIDTH, HIGH = 480.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 14.0, 44.0
"""Margins, in which labels stand."""
DOTTED = 40
"""Points beyond this many are a line alone."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """Point of a line, in the chart's coordinates."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """Line of a chart."""

    name: str
    path: str
    """Corners, as SVG's `points`."""
    dots: list[Dot]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Chart of quantities over epochs or layers."""

    title: str
    x_label: str
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mark: Dot | None = None
    """Point that is ringed."""
    width: float = WIDTH
    high: float = HIGH
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HIGH - BOTTOM

    @property
    def summary(self) -> str:
        """The chart in words."""
        marked = [self.mark.text] if self.mark else []
        ends = [f"{one.name}: {one.dots[-1].text}" for one in self.series if one.dots]
        return "; ".join([f"{self.title}; {self.x_label}", *ends, *marked])


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Linear map of values to coordinates."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def draw_chart(
    title: str,
    lines: Mapping[str, Points],
    x_label: str,
    mark: tuple[float, float, str] | None = None,
    *,
    x_name: str = "epoch",
    least: float | None = None,
) -> Chart:
    """Lay out a chart.

    Args:
        title: title.
        lines: points of every line by its name; none is empty.
        x_label: label below the axis.
        mark: x, y and words of the point to ring.
        x_name: word for x in the points' tooltips.
        least: value that the vertical axis reaches down to.
    """
    places = [x for points in lines.values() for x, _ in points]
    values = [y for points in lines.values() for _, y in points]
    across = _axis(min(0.0, *places), max(places), LEFT, WIDTH - RIGHT, whole=True)
    up = _axis(min(values if least is None else [least, *values]), max(values), HIGH - BOTTOM, TOP)
    return Chart(
        title=title,
        x_label=x_label,
        series=[_trace(name, x_name, points, across, up) for name, points in lines.items()],
        x_ticks=across.ticks,
        y_ticks=up.ticks,
        mark=mark and Dot(x=across.place(mark[0]), y=up.place(mark[1]), text=mark[2]),
    )


def _trace(name: str, x_name: str, points: Points, across: _Axis, up: _Axis) -> Series:
    placed = [(across.place(at), up.place(value)) for at, value in points]
    dots = [
        Dot(x=x, y=y, text=f"{x_name} {at:.4g}: {value:.4g}")
        for (x, y), (at, value) in zip(placed, points, strict=True)
    ]
    corners = " ".join(f"{x:g},{y:g}" for x, y in _thin(placed))
    return Series(name=name, path=corners, dots=dots if len(dots) <= DOTTED else [])


def _thin(placed: Points) -> list[tuple[float, float]]:
    """Keep the highest and the lowest of the points that share a column of pixels."""
    columns: dict[int, list[tuple[float, float]]] = {}
    for x, y in placed:
        columns.setdefault(round(x), []).append((x, y))
    kept = []
    for points in columns.values():
        ends = {min(points, key=lambda one: one[1]), max(points, key=lambda one: one[1])}
        kept += sorted(ends, key=points.index)
    return kept


def _axis(low: float, high: float, start: float, end: float, whole: bool = False) -> _Axis:
    """Return an axis with five ticks or so; `whole` starts and ends it at the values."""
    from matplotlib.ticker import MaxNLocator

    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, or a line that is level
        low, high = low - max(abs(low), 1e-3) / 2, high + max(abs(high), 1e-3) / 2
    nice = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole and high - low >= 2)
    ticks = [float(tick) for tick in nice.tick_values(low, high)]
    if not whole:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    step = ticks[1] - ticks[0]
    decimals = next((n for n in range(12) if abs(round(step, n) - step) < 1e-6 * step), 12)
    axis = _Axis(low=low, high=high, start=start, end=end)
    for tick in ticks:
        if low - 1e-12 <= tick <= high + 1e-12:
            axis.ticks.append((axis.place(tick), _label(tick, decimals)))
    return axis


def _label(tick: float, decimals: int) -> str:
    text = f"{tick:.3g}" if decimals > 6 or abs(tick) >= 1e6 else f"{tick:,.{decimals}f}"
    return "0" if not text.strip("-0.") else text.replace("-", "−")
