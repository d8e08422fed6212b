"""Curves of one run: training loss and score over epochs, as charts for the page's own SVG.

Not by matplotlib: it takes 0.3 s a chart, and a report has hundreds of runs. Its locator places the
ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.report.comparison.run_index import Run, RunIndex, number

Points = list[tuple[float, float]]

LOSS = "train/loss"
WIDTH, HIGH = 480.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 14.0, 44.0
"""Margins, in which labels stand."""
DOTTED = 40
"""Points beyond this many are a line alone."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """Evaluation or logged step, in the chart's coordinates."""

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
    """Chart of quantities over epochs."""

    title: str
    x_label: str
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mark: Dot | None = None
    """The epoch that counts."""
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
        return "; ".join([f"{self.title} over epochs", *ends, *marked])


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


def draw_charts(run: Run, index: RunIndex) -> list[Chart]:
    """Return charts of training loss and primary metric; none of what the history lacks.

    Args:
        run: a finished run.
        index: its index, where a damaged history is reported.
    """
    lines = index.lines(run)
    keys = dict.fromkeys(key for line in lines for key in line if key != LOSS)
    metric, split = run.primary.get("name"), run.primary.get("split")
    scored = [key for key in keys if key.partition("/")[2] == metric]
    scored.sort(key=lambda key: key != f"{split}/{metric}")  # the split that counts comes first
    losses, scores = (_read(run, index, names) for names in ([LOSS], scored))
    steps, charts = _count_steps(lines), []
    if losses:
        charts.append(_draw("Training loss", losses, None, steps))
    if scores:
        charts.append(_draw(f"Score: {metric}", scores, _find_mark(run, scores), steps))
    return charts


def _read(run: Run, index: RunIndex, names: list[str]) -> dict[str, Points]:
    return {name: points for name in names if (points := index.curve(run, name))}


def _find_mark(run: Run, scores: dict[str, Points]) -> tuple[float, float, str] | None:
    """Return epoch, value and words of the best epoch, else of the last, on the first curve."""
    metrics = run.record.metrics or {}
    rule = next((rule for rule in ("best", "last") if metrics.get(rule)), None)
    epoch = number(metrics[rule].get("epoch")) if rule else None
    near = [value for at, value in next(iter(scores.values())) if at == epoch]
    return (epoch, near[-1], f"{rule} epoch, {epoch:g}: {near[-1]:.4g}") if near else None


def _count_steps(lines: Sequence[dict]) -> int | None:
    """Return the steps of an epoch, if the last line tells."""
    last = lines[-1] if lines else {"epoch": 0}
    return round(last["step"] / last["epoch"]) if last["epoch"] > 0 else None


def _draw(
    title: str,
    curves: dict[str, Points],
    mark: tuple[float, float, str] | None,
    steps: int | None,
) -> Chart:
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    values = [value for points in curves.values() for _, value in points]
    across = _axis(min(0.0, *epochs), max(epochs), LEFT, WIDTH - RIGHT, whole=True)
    up = _axis(min(values), max(values), HIGH - BOTTOM, TOP)
    series = [_trace(name.partition("/")[0], points, across, up) for name, points in curves.items()]
    return Chart(
        title=title,
        x_label=f"Epoch of {steps:,} step{'s' * (steps != 1)}" if steps else "Epoch",
        series=series,
        x_ticks=across.ticks,
        y_ticks=up.ticks,
        mark=mark and Dot(x=across.place(mark[0]), y=up.place(mark[1]), text=mark[2]),
    )


def _trace(name: str, points: Points, across: _Axis, up: _Axis) -> Series:
    placed = [(across.place(epoch), up.place(value)) for epoch, value in points]
    dots = [
        Dot(x=x, y=y, text=f"epoch {epoch:.4g}: {value:.4g}")
        for (x, y), (epoch, value) in zip(placed, points, strict=True)
    ]
    corners = " ".join(f"{x:g},{y:g}" for x, y in _thin(placed))
    return Series(name=name, path=corners, dots=dots if len(dots) <= DOTTED else [])


def _thin(placed: Points) -> Points:
    """Keep the highest and the lowest of the points that share a column of pixels."""
    columns: dict[int, Points] = {}
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
    text = f"{tick:,.{decimals}f}"
    return "0" if not text.strip("-0.") else text.replace("-", "−")
