"""Lay out a line chart as plain coordinates, for a template to render as SVG."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse, groupby
from operator import itemgetter

import attrs

# Generous margins: SVG text shrinks with the chart, so the page enlarges it on narrow screens.
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 586, 36, 272
_MARGIN = 54
_TICKS = 6
_MAX_POINTS = 500

_Points = Sequence[tuple[int, float]]


@attrs.frozen
class Mark:
    """A labelled point of the chart."""

    x: float
    y: float
    label: str


@attrs.frozen
class Curve:
    """One curve: an SVG path that breaks at non-finite values, which are `gaps` at the bottom of the chart."""

    name: str
    path: str
    points: tuple[Mark, ...]
    gaps: tuple[Mark, ...]


@attrs.frozen
class Chart:
    """Curves in a frame with ticks on its axes."""

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
    """Lay out curves, each a mapping from step to value; None if no value is finite."""
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
    """Downsample a long curve: of each stretch keep the lowest, the highest and one non-finite value."""
    size = math.ceil(3 * len(points) / _MAX_POINTS)
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
    """Choose round, evenly spaced values that enclose a range."""
    span = high - low
    # Nearly equal values would get ticks with equal labels.
    if span <= 1e-4 * max(abs(low), abs(high), 1e-9):
        span = abs(low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = max(smallest, next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * _TICKS >= span))
    first = math.floor(low / step)
    return [step * count for count in range(first, max(math.ceil(high / step), first + 1) + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)
