"""One rung of successive halving on several objectives: who has arrived, and who is to go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import moocore
import numpy as np
from sortedcontainers import SortedList

from analysis.constraint import Constraint
from analysis.front import pareto_ranks
from vqtune.layers import Layers, place_in_layer


@dataclass(frozen=True)
class Arrival:
    """A trial at a rung.

    Attributes:
        costs: the objectives, each to be minimised.
        limited: the value that the constraint looks at; None without a constraint.
        key: in [0, 1), its own; breaks ties, least first.
    """

    costs: tuple[float, ...]
    limited: float | None
    key: float

    @property
    def finite(self) -> bool:
        """Whether it can be compared; one with a NaN or an infinity comes last."""
        return all(map(math.isfinite, self.costs))


class Rung:
    """Trials in the order feasible, non-dominated rank, hypervolume contribution, key.

    The order, and with it every decision, depends on which trials have arrived and not on when. A
    monotone change of an objective leaves it as it is, since contributions are computed on ranks.

    Args:
        objectives: how many.
        constraint: what makes a trial feasible; None where all are.
    """

    def __init__(self, objectives: int, constraint: Constraint | None = None) -> None:
        """Start with nobody."""
        self.constraint = constraint
        self.arrivals: dict[str, Arrival] = {}
        self.baseline: float | None = None
        self._objectives = objectives
        self._feasible, self._others = self._groups()

    def add(self, trial_id: str, arrival: Arrival, baseline: bool = False) -> None:
        """Record a trial; `baseline` says that the constraint is measured against this one."""
        self.arrivals[trial_id] = arrival
        if baseline and self.constraint is not None and self.constraint.relative:
            # Now it is known which of those that came before hold the constraint.
            self.baseline = arrival.limited
            self._feasible, self._others = self._groups()
            for one in self.arrivals.values():
                self._sort_in(one)
        else:
            self._sort_in(arrival)

    def goes_on(self, trial_id: str, reduction_factor: float) -> bool:
        """Whether a trial that has arrived is among the best 1/reduction_factor of all here.

        It is if fewer than that share of them come before it, so the best always goes on, and one
        whose betters alone are that many never does.
        """
        arrival, wanted = self.arrivals[trial_id], len(self.arrivals) / reduction_factor
        if not arrival.finite:
            return False
        if self._holds(arrival):
            return self._feasible.places_before(arrival, wanted)
        return self._others.places_before(arrival, wanted - len(self._feasible))

    def _groups(self) -> tuple[Group, Group]:
        if self._objectives <= 2:
            return PlaneGroup(), PlaneGroup()
        return SpaceGroup(), SpaceGroup()

    def _sort_in(self, arrival: Arrival) -> None:
        if arrival.finite:
            (self._feasible if self._holds(arrival) else self._others).add(arrival)

    def _holds(self, arrival: Arrival) -> bool:
        if self.constraint is None or arrival.limited is None:
            return True
        return self.constraint.violation(arrival.limited, self.baseline) <= 0


class Group(Protocol):
    """Trials that are all feasible, or all not."""

    def __len__(self) -> int:
        """How many."""

    def add(self, arrival: Arrival) -> None:
        """Take in one more."""

    def places_before(self, arrival: Arrival, wanted: float) -> bool:
        """Whether fewer than `wanted` come before one that is in the group."""


class PlaneGroup:
    """One or two objectives: O(log n) comparisons for a trial, however many have arrived."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._layers = Layers()
        # Every value of each axis, for ranks.
        self._x: SortedList[float] = SortedList()
        self._y: SortedList[float] = SortedList()

    def __len__(self) -> int:
        """How many."""
        return len(self._x)

    def add(self, arrival: Arrival) -> None:
        """Take in one more."""
        x, y = _plane(arrival.costs)
        self._layers.add(x, y, arrival.key)
        self._x.add(x)
        self._y.add(y)

    def places_before(self, arrival: Arrival, wanted: float) -> bool:
        """Whether fewer than `wanted` come before one that is in the group."""
        x, y = _plane(arrival.costs)
        before, layer = self._layers.before(x, y)
        if before >= wanted or layer is None:
            return False
        if before + layer.trials - 1 < wanted:
            return True
        n = len(self)
        place = place_in_layer(
            *(layer, x, y, arrival.key),
            lambda value: self._x.bisect_left(value) / n,
            lambda value: self._y.bisect_left(value) / n,
        )
        return before + place < wanted


class SpaceGroup:
    """Any number of objectives, sorted anew for every trial."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._arrivals: list[Arrival] = []

    def __len__(self) -> int:
        """How many."""
        return len(self._arrivals)

    def add(self, arrival: Arrival) -> None:
        """Take in one more."""
        self._arrivals.append(arrival)

    def places_before(self, arrival: Arrival, wanted: float) -> bool:
        """Whether fewer than `wanted` come before one that is in the group."""
        costs = np.array([one.costs for one in self._arrivals])
        ranks = pareto_ranks(costs, ["min"] * costs.shape[1])
        mine = ranks[[one is arrival for one in self._arrivals].index(True)]
        before = int((ranks < mine).sum())
        layer = [one for one, rank in zip(self._arrivals, ranks, strict=True) if rank == mine]
        if before >= wanted or before + len(layer) - 1 < wanted:
            return before < wanted
        return before + _place(arrival, layer, costs) < wanted


def _place(arrival: Arrival, layer: Sequence[Arrival], costs: np.ndarray) -> int:
    """How many of its layer add more volume, on ranks over all `costs` [n, m]."""
    first: dict[tuple[float, ...], Arrival] = {}
    for one in sorted(layer, key=lambda one: one.key):
        first.setdefault(one.costs, one)
    points = np.array(list(first))
    axes = zip(np.sort(costs, axis=0).T, points.T, strict=True)
    ranks = np.stack([np.searchsorted(*axis) for axis in axes], axis=1) / len(costs)
    volumes = dict(zip(first, moocore.hv_contributions(ranks, ref=1.0), strict=True))

    def order(one: Arrival) -> tuple[float, float]:
        stands = first[one.costs] is one
        return (-float(volumes[one.costs]) if stands else math.inf, one.key)

    return sum(order(one) < order(arrival) for one in layer)


def _plane(costs: tuple[float, ...]) -> tuple[float, float]:
    return (costs[0], costs[1]) if len(costs) == 2 else (costs[0], 0.0)
