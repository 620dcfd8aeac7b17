"""Axes of the page's charts: from values to places in per cent of the chart's width or height.

The charts' SVG has no viewBox: places are percentages, so that text keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

# An axis is logarithmic where the largest value would squash the others into a corner.
_SQUASHED = 10.0
# Values whose relative difference is below are drawn as one.
_EQUAL = 1e-9
# What is beyond is not drawn for; the range of a logarithmic axis; how far off a place may be.
_HUGE, _DECADES, _OFF = 1e150, 1e12, 100.0


@dataclass(frozen=True)
class Tick:
    """A labelled value: `at` in per cent from the axis' low end."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; `hint` says which way is better, or is empty."""

    label: str
    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...] = ()
    hint: str = ""

    def place(self, value: float) -> float:
        """Where `value` lies, in per cent from the low end; beyond 0 or 100 outside."""
        low, high, value = (self._line(number) for number in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return round(100 * min(max(share, -_OFF), _OFF), 2)

    def _line(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


def make_axis(
    label: str,
    values: Iterable[float],
    *,
    hint: str = "",
    zero: bool = False,
    log: bool | None = None,
    margin: float = 0.05,
    count: int = 5,
) -> Axis:
    """Make an axis on which all finite `values` find room.

    Args:
        label: what is measured.
        values: what is to be shown, as far as it is finite; none give an axis from 0 to 1.
        hint: which way is better.
        zero: whether 0 is to be on the axis.
        log: whether it is logarithmic; None decides by the values.
        margin: room at both ends, as a share of the range; none beside a 0 that was asked for.
        count: about how many ticks.

    """
    finite = np.asarray([value for value in values if abs(value) < _HUGE], dtype=np.float64)
    positive = len(finite) > 0 and bool(finite.min() > finite.max() / _DECADES > 0)
    if log is None:
        log = positive and not zero and finite.max() > _SQUASHED * float(np.median(finite))
    log = log and positive
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if log:
        room = (high / low) ** margin if high > low * (1 + _EQUAL) else 2.0
        low, high = low / room, high * room
    else:
        low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
        size = max(abs(low), abs(high))
        room = (high - low) * margin if high - low > _EQUAL * size else size * 0.1 or 1.0
        low -= 0.0 if zero and low == 0 else room
        high += 0.0 if zero and high == 0 > low else room
    bare = Axis(label, low, high, log, (), hint)
    return Axis(label, low, high, log, _ticks(bare, count), hint)


def _ticks(axis: Axis, count: int) -> tuple[Tick, ...]:
    found = _values(axis, count)
    return tuple(Tick(axis.place(value), tick_label(value)) for value in found)


def _values(axis: Axis, count: int) -> Sequence[float]:
    if axis.log:
        subs = (1.0,) if axis.high / axis.low > 1e3 else (1.0, 2.0, 5.0)
        values = LogLocator(subs=subs, numticks=count + 2).tick_values(axis.low, axis.high)
    else:
        values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(axis.low, axis.high)
    return [float(v) for v in values if axis.low <= v <= axis.high]


def tick_label(value: float) -> str:
    """Write a round value in few characters."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("-", "\u2212")
    return f"{value:,.6g}".replace("-", "\N{MINUS SIGN}")


def path(points: Iterable[tuple[float, float]]) -> str:
    """Write an SVG path through places in per cent, y upwards, in a viewBox of 1000 x 1000.

    A single place is a line of no length, which a round cap shows as a dot.
    """
    told = [f"{10 * x:.0f} {1000 - 10 * y:.0f}" for x, y in points]
    return f"M{told[0]}L{' '.join(told[1:] or told)}" if told else ""


def crosses(points: Iterable[tuple[float, float]]) -> str:
    """Write an SVG path of small crosses."""
    arms = "l14 14m0-14l-14 14"
    return "".join(f"M{10 * x - 7:.0f} {993 - 10 * y:.0f}{arms}" for x, y in points)


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Move `places` in per cent apart by at least `gap`, in their order, around where they were."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = [places[i] for i in order]
    for _ in range(50):
        for low, high in pairwise(range(len(moved))):
            short = gap - (moved[high] - moved[low])
            if short > 0:
                moved[low] -= short / 2
                moved[high] += short / 2
    by_place = dict(zip(order, moved, strict=True))
    return [round(by_place[i], 2) for i in range(len(places))]


def dots(points: Iterable[tuple[float, float]]) -> str:
    """Write an SVG path of dots: its stroke has a round cap."""
    return "".join(f"M{10 * x:.0f} {1000 - 10 * y:.0f}h0" for x, y in points)
