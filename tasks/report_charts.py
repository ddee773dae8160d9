"""The arithmetic of the report's charts: where ticks, lines and dots go. ``report_charts.svg.j2`` draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH, HEIGHT = 480, 280
LEFT, RIGHT, TOP, BOTTOM = 48, 466, 16, 240
"""A chart's drawing area and the frame of its axes, in SVG units; about as wide as a telephone's screen."""

STRIP_LEFT = 24
"""Where the strip plot's axis begins: its groups are named inside."""

DOT = 4.2
"""Radius of a dot in the strip plot."""

LANES = 14
"""So many dots at most are stacked at one place; further ones lie on top of each other."""


class Tick(NamedTuple):
    """A mark on an axis."""

    at: float
    text: str


class Dot(NamedTuple):
    """A point, and what a reader sees when pointing at it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, its CSS class ("train" or "val") and its points in SVG units."""

    name: str
    style: str
    dots: tuple[Dot, ...]

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{dot.x:g},{dot.y:g}" for dot in self.dots)


@dataclass(frozen=True, slots=True)
class LineChart:
    """Curves over epochs."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """The dots of one group, its name's baseline, and where its mean lies."""

    name: str
    n: int
    mean: float
    mean_at: float
    top: float
    bottom: float
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class StripPlot:
    """One band of dots per group over a common axis, and the interval of the mean of all."""

    bands: tuple[Band, ...]
    low_at: float
    high_at: float
    x_ticks: tuple[Tick, ...]
    bottom: float

    @property
    def height(self) -> float:
        """Height of the whole drawing."""
        return self.bottom + HEIGHT - BOTTOM


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most ``most`` round numbers that span [low, high]: steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> nice_ticks(0.83, 0.98)
    [0.8, 0.85, 0.9, 0.95, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / (most - 1)))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first < most:
            break
    return [round(index * step, 10) for index in range(first, last + 1)]


def epoch_ticks(epochs: int, most: int = 7) -> list[int]:
    """Whole epochs to mark, from 0."""
    steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    step = next(step for step in steps if epochs / step < most)
    return list(range(0, epochs + 1, step))


def line_chart(
    title: str, history: Sequence[Mapping[str, float]], curves: Mapping[str, tuple[str, str]]
) -> LineChart | None:
    """Curves of what the epochs' records hold, None where they hold nothing to draw.

    Args:
        title: what the values are.
        history: one record per epoch, with "epoch"; a value may be missing from some.
        curves: key in the records -> (name, CSS class).
    """
    values = [record[key] for record in history for key in curves if key in record]
    if not values:
        return None
    y_values, last = nice_ticks(min(values), max(values)), max(1, int(max(record["epoch"] for record in history)))

    def x_of(epoch: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * epoch / last, 1)

    def y_of(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - y_values[0]) / (y_values[-1] - y_values[0]), 1)

    lines = []
    for key, (name, style) in curves.items():
        records = [record for record in history if key in record]
        dots = (Dot(x_of(r["epoch"]), y_of(r[key]), f"{name}, epoch {int(r['epoch'])}: {r[key]:.4f}") for r in records)
        lines.append(Line(name, style, tuple(dots)))
    return LineChart(
        title,
        tuple(line for line in lines if line.dots),
        tuple(Tick(x_of(epoch), str(epoch)) for epoch in epoch_ticks(last)),
        tuple(Tick(y_of(value), f"{value:g}") for value in y_values),
    )


def strip_plot(groups: Mapping[str, Sequence[tuple[float, str]]], interval: tuple[float, float]) -> StripPlot:
    """Every value of every group as a dot, alike ones stacked.

    Args:
        groups: name -> (value, text) of each dot; no group is empty.
        interval: of the mean of all values.
    """
    values = [value for group in groups.values() for value, _ in group]
    ticks = nice_ticks(min(values), max(max(values), min(values) + 0.02))
    low, span = ticks[0], ticks[-1] - ticks[0]

    def x_of(value: float) -> float:
        return round(STRIP_LEFT + (RIGHT - STRIP_LEFT) * (value - low) / span, 1)

    bands, top = [], 8.0
    for name, group in groups.items():
        lanes = _lanes([x_of(value) for value, _ in sorted(group)])
        stack = 2 * DOT * max(lanes) + 2 * DOT
        bottom = top + 30 + stack
        dots = tuple(
            Dot(x_of(value), round(bottom - 6 - DOT - 2 * DOT * lane, 1), text)
            for lane, (value, text) in zip(lanes, sorted(group), strict=True)
        )
        mean = sum(value for value, _ in group) / len(group)
        bands.append(Band(name, len(group), mean, x_of(mean), top, round(bottom, 1), dots))
        top = bottom + 8
    marks = tuple(Tick(x_of(value), f"{value:g}") for value in ticks)
    return StripPlot(tuple(bands), x_of(interval[0]), x_of(interval[1]), marks, bands[-1].bottom)


def _lanes(xs: Sequence[float]) -> list[int]:
    """For each of the sorted ``xs``, the lowest lane where its dot touches no earlier one."""
    ends: list[float] = []
    lanes = []
    for x in xs:
        free = next((lane for lane, end in enumerate(ends) if x - end >= 2 * DOT), None)
        if free is None and len(ends) < LANES:
            free = len(ends)
            ends.append(x)
        elif free is None:
            free = min(range(len(ends)), key=ends.__getitem__)
        ends[free] = x
        lanes.append(free)
    return lanes
