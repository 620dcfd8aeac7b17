"""What points add to a front's volume, against counting; orders and knees with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis import placement
from analysis.front import nondominated
from analysis.placement import contributions, gains, greedy, knee, scaled, volume

SIZE = 6


def fronts(seed: int, count: int, m: int) -> list[np.ndarray]:
    """Non-dominated points on a grid of 0 to 6, more is better, some of them equal."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        points = rng.integers(0, SIZE + 1, size=(rng.integers(1, 25), m)).astype(float)
        found.append(points[nondominated(points, ["max"] * m)])
    return found


def counted(points: np.ndarray) -> int:
    """The volume by counting: unit cells whose upper corner a point reaches."""
    m = points.shape[1]
    corners = np.stack(np.meshgrid(*[np.arange(1, SIZE + 1)] * m), axis=-1).reshape(-1, m)
    return int((points[:, None] >= corners).all(-1).any(0).sum())


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_contributions_are_what_a_point_leaves_behind(m: int) -> None:
    for points in fronts(m, 60, m):
        alone = [counted(points) - counted(np.delete(points, i, 0)) for i in range(len(points))]
        assert contributions(points).tolist() == pytest.approx(alone)
        assert volume(points) == counted(points)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_each_position_adds_the_most_that_is_left(m: int) -> None:
    for points in fronts(10 + m, 60, m):
        placed = greedy(points)
        assert sorted(placed.order) == list(range(len(points)))
        for k in range(len(points)):
            before = points[placed.order[:k]]
            added = [counted(np.vstack([before, p])) - counted(before) for p in points]
            assert placed.gains[k] == pytest.approx(max(added))
            assert added[placed.order[k]] == max(added)
            if max(added) > 0:  # of equal ones the first
                assert placed.order[k] == added.index(max(added))
        assert (np.diff(placed.gains) <= 1e-9).all()
        assert placed.gains.sum() == pytest.approx(volume(points))
        assert gains(points, placed.order).tolist() == pytest.approx(placed.gains.tolist())


def test_two_objectives_in_closed_form_are_placed_as_any_number_is() -> None:
    """With a third objective in which all are equal, the general order is taken."""
    rng = np.random.default_rng(5)
    for n in (1, 2, 30, 100):
        angle = rng.random(n) * math.pi / 2
        points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        two, three = greedy(points), greedy(np.hstack([points, np.ones((n, 1))]))
        assert two.order.tolist() == three.order.tolist()
        assert two.gains.tolist() == pytest.approx(three.gains.tolist(), abs=1e-12)


def test_a_staircase_is_placed_from_its_middle() -> None:
    """Steps (i, 8 - i): i * (8 - i) is most in the middle, and then each half has its own."""
    points = np.array([[i, 8 - i] for i in range(1, 8)], dtype=float)
    placed = greedy(points)
    assert points[placed.order, 0].tolist() == [4, 2, 6, 1, 3, 5, 7]
    assert placed.gains.tolist() == [16, 4, 4, 1, 1, 1, 1]


def test_the_first_k_are_those_that_optuna_picks() -> None:
    hssp = pytest.importorskip("optuna._hypervolume.hssp")._solve_hssp
    rng = np.random.default_rng(6)
    for _ in range(20):
        points = np.abs(rng.standard_normal((30, 3)))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        k = int(rng.integers(1, 30))
        theirs = hssp(-points, np.arange(30), k, np.zeros(3))
        assert set(theirs.tolist()) == set(greedy(points).order[:k].tolist())


def test_after_so_many_positions_points_follow_by_what_they_alone_dominate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = np.array([[i, math.sqrt(400 - i**2)] for i in range(1, 20)])
    whole = greedy(points)
    monkeypatch.setattr(placement, "MOST_PLACED", 5)
    cut = greedy(points)
    assert cut.order[:5].tolist() == whole.order[:5].tolist()
    assert np.isfinite(cut.gains).tolist() == [True] * 5 + [False] * 14
    assert (np.diff(contributions(points)[cut.order[5:]]) <= 0).all()
    assert sorted(cut.order) == list(range(19))


# --- scale ---------------------------------------------------------------------------------------


def test_the_baseline_is_0_and_the_best_is_1() -> None:
    front = np.array([[10.0, 3.0], [30.0, 2.0]])
    points = scaled(np.vstack([front, [0.0, 1.0]]), front, np.array([5.0, 1.0]))
    assert points.tolist() == [[0.2, 1.0], [1.0, 0.5], [-0.2, 0.0]]


@pytest.mark.parametrize("baseline", [None, [20.0, 2.5], [np.nan, np.inf], [10.0, 2.0]])
def test_without_a_baseline_behind_it_the_worst_of_the_front_is_moved_out(
    baseline: list[float] | None,
) -> None:
    front = np.array([[10.0, 3.0], [20.0, 2.0]])
    points = scaled(front, front, None if baseline is None else np.array(baseline))
    assert points == pytest.approx(np.array([[1 / 11, 1.0], [1.0, 1 / 11]]))


def test_an_objective_in_which_all_are_equal_counts_for_nothing() -> None:
    front = np.array([[10.0, 7.0]])
    points = scaled(np.array([[10.0, 7.0], [9.0, 7.0], [np.nan, 6.0]]), front, None)
    assert points.tolist() == [[1, 1], [0, 1], [0, 0]]


# --- knee ----------------------------------------------------------------------------------------


def test_the_knee_of_a_circle_is_halfway() -> None:
    angles = np.linspace(0, math.pi / 2, 9)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert knee(points) == 4
    assert knee(points * [1000, 0.001] + [5, 7]) == 4


def test_the_knee_of_a_sphere_is_halfway_to_all() -> None:
    rng = np.random.default_rng(8)
    points = np.abs(rng.standard_normal((50, 3)))
    points = np.vstack([np.eye(3), points, np.full((1, 3), 1.0)])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert knee(points) == len(points) - 1


def test_of_equal_knees_the_first_is_named() -> None:
    assert knee(np.array([[0, 1], [0.9, 0.9], [0.9, 0.9], [1, 0]])) == 1


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 2)),
        np.array([[0.2, 1.0], [1.0, 0.1]]),
        np.array([[0.2, 1.0], [0.2, 1.0], [1.0, 0.1]]),  # two distinct ones
        np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]),  # on the line
        np.array([[0.0, 1.0], [0.4, 0.4], [1.0, 0.0]]),  # behind it
        np.array([[1.0], [1.0], [1.0]]),
        np.array([[1.0, 1.0, 0.0], [0.9, 0.0, 1.0], [0.5, 0.5, 0.5]]),  # one is best twice
    ],
)
def test_a_front_without_a_knee(points: np.ndarray) -> None:
    assert knee(points) is None
