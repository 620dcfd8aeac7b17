"""Where the points of a front stand: what each adds to the volume, and which one is the knee.

All points here are scaled: 0 is the reference, 1 the best, and more is better in every objective.
`ranking` scales the trials and puts names and words to what these functions return.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import moocore
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

# So many positions are chosen one by one; nobody reads on, and each costs a look at all points.
MOST_PLACED = 500
# Without a baseline beyond it, the front's worst is moved outward by this share of its range, or
# the extremes would dominate no volume at all.
MARGIN = 0.1
# Shares closer than this are equal: rounding must not decide an order.
_DIGITS = 12


class Placement(NamedTuple):
    """An order of points, as their indices, and the volume that each adds to those before it."""

    order: npt.NDArray[np.int64]
    gains: npt.NDArray[np.float64]


def scaled(values: Points, front: Points, baseline: Points | None) -> Points:
    """Scale `values` [n, m], where more is better, by their `front` [k, m] and the `baseline` [m].

    1 is the front's best. 0 is the baseline's value where all of the front is better, else the
    front's worst, moved outward by MARGIN of the front's range. An objective in which that leaves
    no range tells the front's points nothing: it is 1 for them, and 0 for what is worse. Values of
    the baseline that are not finite do not count.
    """
    best, worst = front.max(axis=0), front.min(axis=0)
    reference = worst - MARGIN * (best - worst)
    if baseline is not None:
        behind = np.isfinite(baseline) & (baseline < worst)
        reference = np.where(behind, baseline, reference)
    extent = best - reference
    flat = ~(extent > 0)
    rises = (values - reference) / np.where(flat, 1, extent)
    return np.asarray(np.where(flat, values >= best, rises), dtype=np.float64)


def own_volumes(points: Points) -> npt.NDArray[np.float64]:
    """Volume between each of `points` [n, m] and the reference; [n]."""
    return np.asarray(np.clip(points, 0, None).prod(axis=1))


def volume(points: Points) -> float:
    """Volume that `points` [n, m] dominate together."""
    return float(moocore.hypervolume(-points, ref=np.zeros(points.shape[1])))


def contributions(points: Points) -> npt.NDArray[np.float64]:
    """Volume that only each of the mutually non-dominated `points` [n, m] dominates; [n]."""
    if points.shape[1] == 1 or len(points) < 2:  # moocore has no contributions of one objective
        return own_volumes(points) if len(points) == 1 else np.zeros(len(points))
    return np.asarray(moocore.hv_contributions(-points, ref=np.zeros(points.shape[1])))


def greedy(points: Points) -> Placement:
    """Order non-dominated `points` [n, m]: each next one adds most to the volume of those before.

    This is greedy hypervolume subset selection (Guerreiro, Fonseca and Paquete 2016): the first k
    dominate at least 1 - 1/e of what any k could. Of equal ones the first comes first. What
    adds nothing, and all after MOST_PLACED positions, follow by what they alone dominate and then
    by their own volume; the gains of the latter are NaN.
    """
    placed = _greedy_2d(points) if points.shape[1] == 2 else _greedy(points)
    left = np.setdiff1d(np.arange(len(points)), placed.order)
    keys = (-_rounded(own_volumes(points[left])), -_rounded(contributions(points)[left]))
    left = left[np.lexsort(keys)]
    rest = np.full(len(left), np.nan if len(placed.order) >= MOST_PLACED else 0.0)
    return Placement(np.append(placed.order, left), np.append(placed.gains, rest))


def gains(points: Points, order: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Volume that each of `points` [n, m] adds to those before it in `order`; [n], in that order.

    NaN after MOST_PLACED positions.
    """
    found = np.full(len(order), np.nan)
    sorted_points = points[np.asarray(order, dtype=np.int64)]
    for i in range(min(len(order), MOST_PLACED)):
        found[i] = _gain(sorted_points[i], sorted_points[:i])
    return found


def knee(points: Points) -> int | None:
    """Index of the knee of a front `points` [n, m]: the most for what is given up.

    It is the point farthest beyond the hyperplane through the extremes, the best ones of each
    objective (Das 1999, On characterizing the "knee" of the Pareto curve; Branke et al. 2004,
    Finding knees in multi-objective optimization); the choice does not depend on units. None for
    fewer than three distinct points or one objective, where the extremes span no hyperplane that
    faces the reference, and where no point lies beyond it.
    """
    m = points.shape[1]
    if m < 2 or len(np.unique(points, axis=0)) < 3:
        return None
    # Of several best ones the extreme is the one that is better in the others.
    sums = points.sum(axis=1)
    extremes = points[[np.lexsort((sums, column))[-1] for column in points.T]]
    _, spans, rows = np.linalg.svd(extremes[1:] - extremes[0])
    normal = rows[-1] * np.sign(rows[-1].sum())
    if spans[-1] < 1e-9 or normal.min() <= 1e-9:
        return None
    beyond = np.round((points - extremes[0]) @ normal, _DIGITS)
    return int(beyond.argmax()) if beyond.max() > 1e-9 else None


def _greedy_2d(points: Points) -> Placement:
    """For two objectives in closed form: the rectangle between the neighbours placed already."""
    by_first = np.lexsort((np.arange(len(points)), points[:, 1], points[:, 0]))
    first, second = np.clip(points[by_first], 0, None).T
    # What is dominated already: to the left of the point up to `left`, below it up to `below`.
    left, below = np.zeros(len(points)), np.zeros(len(points))
    order: list[np.int64] = []
    found: list[np.float64] = []
    while len(order) < min(len(points), MOST_PLACED):
        added = _rounded(np.clip(first - left, 0, None) * np.clip(second - below, 0, None))
        most = added.max()
        if most <= 0:
            break
        at = min(np.flatnonzero(added == most), key=lambda i: by_first[i])
        order.append(by_first[at])
        found.append((first[at] - left[at]) * (second[at] - below[at]))
        left[at:] = np.maximum(left[at:], first[at])
        below[: at + 1] = np.maximum(below[: at + 1], second[at])
    return Placement(np.array(order, dtype=np.int64), np.array(found, dtype=np.float64))


def _greedy(points: Points) -> Placement:
    """For any number of objectives. A gain only shrinks, so an old one bounds it from above."""
    order: list[int] = []
    found: list[float] = []
    bounds = [(-volume, i, 0) for i, volume in enumerate(_rounded(own_volumes(points)))]
    heapq.heapify(bounds)
    while bounds and len(order) < MOST_PLACED:
        bound, i, after = heapq.heappop(bounds)
        if bound >= 0:
            break
        if after == len(order):
            found.append(_gain(points[i], points[order]))
            order.append(i)
        else:
            gain = float(_rounded(np.array(_gain(points[i], points[order]))))
            heapq.heappush(bounds, (-gain, i, len(order)))
    return Placement(np.array(order, dtype=np.int64), np.array(found, dtype=np.float64))


def _gain(point: Points, before: Points) -> float:
    """What `point` [m] dominates and `before` [k, m] do not: its own volume less theirs in it."""
    point = np.clip(point, 0, None)
    own = float(point.prod())
    if len(before) == 0 or own == 0:
        return own
    return max(own - volume(np.minimum(before, point)), 0.0)


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.round(values, _DIGITS)
