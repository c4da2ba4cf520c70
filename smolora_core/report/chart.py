"""A line chart as plain coordinates, for a template to write as SVG."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse, groupby
from operator import itemgetter

import attrs

# Text in the SVG shrinks with it: on a narrow screen the page's style makes it larger, and the margins have room for that.
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 586, 36, 272
_MARGIN = 54
_TICKS = 6
_MOST_POINTS = 500

_Points = Sequence[tuple[int, float]]


@attrs.frozen
class Mark:
    """A place in the chart, and what stands there."""

    x: float
    y: float
    label: str


@attrs.frozen
class Curve:
    """One curve.

    Attributes:
        name: what it shows.
        path: an SVG path, broken where a value is not finite; a point on its own is a stroke of no length.
        points: finite values.
        gaps: steps whose value is not finite, at the foot of the chart.
    """

    name: str
    path: str
    points: tuple[Mark, ...]
    gaps: tuple[Mark, ...]


@attrs.frozen
class Chart:
    """Curves in one frame, with the marks on its axes."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    width: int = _RIGHT + _MARGIN
    height: int = _BOTTOM + _MARGIN
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


def draw(curves: Mapping[str, Mapping[int, float]]) -> Chart | None:
    """Draw values over steps.

    Args:
        curves: values by step, by the name of the curve; one without values is left out.

    Returns:
        None if no value is finite.
    """
    given = {name: _thinned(sorted(values.items())) for name, values in curves.items() if values}
    steps = [step for points in given.values() for step, _ in points]
    values = [value for points in given.values() for _, value in points if math.isfinite(value)]
    if not values:
        return None
    first, last = min(steps), max(*steps, min(steps) + 1)
    heights = _ticks(min(values), max(values))
    x = _scale(first, last, _LEFT, _RIGHT)
    y = _scale(heights[0], heights[-1], _BOTTOM, _TOP)
    return Chart(
        curves=tuple(_curve(name, points, x, y) for name, points in given.items()),
        x_ticks=tuple(Mark(x(tick), _BOTTOM, f"{tick:,.0f}") for tick in _ticks(first, last, 1) if first <= tick <= last),
        y_ticks=tuple(Mark(_LEFT, y(tick), f"{tick:.6g}") for tick in heights),
    )


def _curve(name: str, points: _Points, x: Callable[[float], float], y: Callable[[float], float]) -> Curve:
    path = ""
    marks: dict[bool, list[Mark]] = {True: [], False: []}
    for finite, stretch in groupby(points, key=_is_finite):
        drawn = [Mark(x(step), y(value) if finite else _BOTTOM, f"step {step:,}: {value:.4g}") for step, value in stretch]
        marks[finite] += drawn
        if finite:
            path += f"M{drawn[0].x} {drawn[0].y}" + "".join(f"L{mark.x} {mark.y}" for mark in drawn)
    return Curve(name, path, tuple(marks[True]), tuple(marks[False]))


def _thinned(points: _Points) -> _Points:
    """Keep, of every stretch of a long curve, the lowest value, the highest, and one that is not finite."""
    size = math.ceil(3 * len(points) / _MOST_POINTS)
    if size <= 3:
        return points
    kept: set[tuple[int, float]] = set()
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        finite = sorted(filter(_is_finite, stretch), key=itemgetter(1))
        kept.update(finite[:1], finite[-1:], list(filterfalse(_is_finite, stretch))[:1])
    return sorted(kept)


def _is_finite(point: tuple[int, float]) -> bool:
    return math.isfinite(point[1])


def _ticks(low: float, high: float, smallest: float = 0.0) -> list[float]:
    """Find round values, evenly spaced, of which the outermost enclose a range."""
    span = high - low
    # Values that hardly differ would have marks that read the same.
    if span <= 1e-4 * max(abs(low), abs(high), 1e-9):
        span = abs(low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = max(smallest, next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * _TICKS >= span))
    first = math.floor(low / step)
    return [step * count for count in range(first, max(math.ceil(high / step), first + 1) + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)
