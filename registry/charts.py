"""Charts as inline SVG and HTML geometry: pure functions from numbers to what the template draws.

Lines are drawn in a unit square that stretches with the page; the words beside them are HTML and keep
their size, so that a chart is as legible on a phone as on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNIT = 1000
_POINTS = 300
_WINDOWS = 24


@dataclass(frozen=True)
class Line:
    """One series: `path` is an SVG path in a square of 1000, `last` its last smoothed value."""

    name: str
    path: str
    last: float


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: `at` in percent of its length, from the left or the bottom."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """A training curve: the smoothed lines, the raw total behind them, and the axes."""

    lines: tuple[Line, ...]
    raw: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    steps: int
    first: float
    last: float


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from `low` to `high` with its ticks."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Where a value stands, in percent of the axis from the left."""
        return 100 * (value - self.low) / (self.high - self.low)


def axis_of(values: Sequence[float], about: int = 5) -> Axis:
    """An axis with round ends that holds all values."""
    ticks = nice_ticks(min(values), max(values), about)
    if len(ticks) < 2:  # all values are one round number
        ticks = nice_ticks(ticks[0] - 0.05, ticks[0] + 0.05, about)
    low, high = ticks[0], ticks[-1]
    return Axis(
        low,
        high,
        tuple(
            Tick(100 * (tick - low) / (high - low), f"{tick:+g}".replace("-", "−") if tick else "0") for tick in ticks
        ),
    )


def training_curve(history: Sequence[dict[str, Any]]) -> Curve | None:
    """The curve of `history.jsonl`: `loss` and every `loss_…`; None where there are not two points."""
    points = [line for line in history if _finite(line.get("loss")) is not None and "step" in line]
    if len(points) < 2:
        return None
    steps = [float(line["step"]) for line in points]
    names = ["loss", *sorted({name for line in points for name in line if name.startswith("loss_")})]
    series = {name: _series(points, name) for name in names}
    smooth = {name: smoothed(values) for name, values in series.items() if values}
    ticks = nice_ticks(0.0, max(value for values in smooth.values() for value in values))
    top, left, right = ticks[-1], steps[0], steps[-1]
    kept = _thinned(len(points))

    def path(values: Sequence[float]) -> str:
        xy = [(UNIT * (steps[at] - left) / (right - left), UNIT * (1 - min(values[at], top) / top)) for at in kept]
        return "M" + "L".join(f"{x:.0f},{y:.0f}" for x, y in xy)

    return Curve(
        lines=tuple(Line(name, path(values), values[-1]) for name, values in smooth.items()),
        raw=path(series["loss"]),
        x_ticks=tuple(
            Tick(100 * (step - left) / (right - left), f"{step:,.0f}")
            for step in nice_ticks(left, right)
            if left <= step <= right
        ),
        y_ticks=tuple(Tick(100 * value / top, f"{value:g}") for value in ticks),
        steps=int(right),
        first=smooth["loss"][0],
        last=smooth["loss"][-1],
    )


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred moving mean over about a 24th of the values: no lag; a short series stays as it is."""
    half = len(values) // _WINDOWS // 2
    windows = (values[max(0, at - half) : at + half + 1] for at in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that span low…high, about so many."""
    span = max(high - low, 1e-9)
    raw = span / about
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def shares(seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Phases with their share of the whole and their bar's length, in percent of the longest."""
    whole, longest = sum(seconds.values()) or 1.0, max(seconds.values(), default=0.0) or 1.0
    return [
        {"name": name, "seconds": value, "share": 100 * value / whole, "bar": 100 * value / longest}
        for name, value in seconds.items()
    ]


def _series(points: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The values of a series; a gap keeps the value before it."""
    values: list[float] = []
    for line in points:
        value = _finite(line.get(name))
        values.append(value if value is not None else (values[-1] if values else 0.0))
    return values


def _thinned(count: int) -> list[int]:
    """At most some hundred positions, the first and the last among them."""
    if count <= _POINTS:
        return list(range(count))
    return sorted({round(at * (count - 1) / (_POINTS - 1)) for at in range(_POINTS)})


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
