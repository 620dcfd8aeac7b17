"""Layers kept up point by point are those that moocore finds among all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.front import pareto_ranks
from vqtune.layers import Layers

# Few values, so that rows are often equal in one objective or in both.
POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60)


def layers_of(points: list[tuple[float, float]]) -> Layers:
    layers = Layers()
    for i, (x, y) in enumerate(points):
        layers.add(float(x), float(y), i / len(points))
    return layers


def ranks_of(layers: Layers) -> dict[tuple[float, float], int]:
    return {(p.x, p.y): rank for rank, layer in enumerate(layers.to_list()) for p in layer}


@settings(max_examples=500, deadline=None)
@given(POINTS)
def test_ranks_and_counts_are_those_of_sorting_everything(points: list[tuple[int, int]]) -> None:
    layers = layers_of(points)
    ranks = pareto_ranks(np.array(points, dtype=float), ["min", "min"])
    held = ranks_of(layers)
    for point, rank in zip(points, ranks, strict=True):
        assert held[point] == rank
        before, layer = layers.before(*point)
        assert before == (ranks < rank).sum()
        assert layer is not None
        assert layer.trials == (ranks == rank).sum()
    trials = {(p.x, p.y): p.trials for layer in layers.to_list() for p in layer}
    assert trials == {point: points.count(point) for point in points}


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_many_points_of_any_correlation(slope: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    y = slope * x + (1 - abs(slope)) * rng.normal(size=3000)
    points = np.stack([x, y], axis=1)
    held = ranks_of(layers_of([tuple(point) for point in points.tolist()]))
    ranks = pareto_ranks(points, ["min", "min"])
    assert [held[point] for point in map(tuple, points.tolist())] == ranks.tolist()
    # From one staircase to a chain of single points: several blocks of layers.
    assert (
        max(ranks) + 1 == len({*ranks.tolist()}) == {-1.0: 1, 1.0: 3000}.get(slope, max(ranks) + 1)
    )


def test_the_least_key_stands_for_equal_trials() -> None:
    layers = Layers()
    for key in (0.5, 0.2, 0.9):
        layers.add(1.0, 1.0, key)
    [[point]] = layers.to_list()
    assert (point.key, point.trials) == (0.2, 3)
