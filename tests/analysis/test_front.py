"""Fronts, ranks and volumes: definitions written out, closed forms, Optuna."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.front import (
    Direction,
    hypervolume,
    nondominated,
    pareto_ranks,
)

# Few distinct values, so that ties and duplicates are common.
COARSE = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 1.5, 2.0])
ANY = COARSE | st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf])


@st.composite
def points(draw: st.DrawFn) -> tuple[np.ndarray, list[Direction]]:
    n, m = draw(st.integers(0, 12)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(ANY, min_size=m, max_size=m), min_size=n, max_size=n))
    directions = draw(st.lists(st.sampled_from(["max", "min"]), min_size=m, max_size=m))
    return np.array(rows, dtype=float).reshape(n, m), directions


def dominates(a: np.ndarray, b: np.ndarray, directions: list[Direction]) -> bool:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    better = [x > y if way == "max" else x < y for x, y, way in zip(a, b, directions, strict=True)]
    worse = [x < y if way == "max" else x > y for x, y, way in zip(a, b, directions, strict=True)]
    return any(better) and not any(worse)


def front_by_definition(values: np.ndarray, directions: list[Direction]) -> list[bool]:
    return [
        bool(np.isfinite(row).all())
        and not any(dominates(other, row, directions) for other in values)
        for row in values
    ]


@given(points())
def test_front_is_what_nothing_dominates(case: tuple[np.ndarray, list[Direction]]) -> None:
    values, directions = case
    before = values.copy()
    mask = nondominated(values, directions)
    assert mask.dtype == bool
    assert mask.tolist() == front_by_definition(values, directions)
    np.testing.assert_array_equal(values, before)


@given(points())
def test_ranks_peel_one_front_after_another(case: tuple[np.ndarray, list[Direction]]) -> None:
    values, directions = case
    finite = np.isfinite(values).all(axis=1)
    expected = np.full(len(values), -1)
    rank = 0
    while (left := np.flatnonzero(finite & (expected < 0))).size:
        expected[left[front_by_definition(values[left], directions)]] = rank
        rank += 1
    expected[~finite] = rank
    assert pareto_ranks(values, directions).tolist() == expected.tolist()


@given(points(), st.randoms())
def test_ranks_do_not_depend_on_the_order_of_rows(
    case: tuple[np.ndarray, list[Direction]], random: Any
) -> None:
    values, directions = case
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = pareto_ranks(values[order], directions)
    assert shuffled.tolist() == pareto_ranks(values, directions)[order].tolist()


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_hypervolume_of_a_staircase(n: int) -> None:
    """Steps (i, i) for perplexity up and loss down cover n columns of heights n, ..., 1."""
    steps = np.array([[i, i] for i in range(1, n + 1)], dtype=float)
    volume = hypervolume(steps, ["max", "min"], [0.0, n + 1.0])
    assert volume == pytest.approx(n * (n + 1) / 2)


def test_hypervolume_leaves_out_what_is_not_better_than_the_reference() -> None:
    values = np.array([[2, 1], [5, 9], [-1, 0], [np.nan, 0], [np.inf, 0], [2, 1]], dtype=float)
    assert hypervolume(values, ["max", "min"], [0.0, 4.0]) == pytest.approx(2 * 3)
    assert hypervolume(values[:0], ["max", "min"], [0.0, 4.0]) == 0


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_hypervolume_agrees_with_optuna(m: int) -> None:
    optuna_hypervolume = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    rng = np.random.default_rng(m)
    for n in (1, 2, 10, 30):
        costs = np.round(rng.random((n, m)), 2 if n < 30 else 1)
        reference = np.full(m, 1.1)
        signs = rng.choice([-1.0, 1.0], size=m)
        directions: list[Direction] = ["max" if sign < 0 else "min" for sign in signs]
        volume = hypervolume(costs * signs, directions, reference * signs)
        assert volume == pytest.approx(optuna_hypervolume(costs, reference), rel=1e-12)


@pytest.mark.parametrize(
    ("values", "directions", "message"),
    [
        (np.zeros((2, 2)), ["max"], r"found shape \[2, 2\], allowed \[n, 1\]"),
        (np.zeros(2), ["max"], r"found shape \[2\]"),
        (np.zeros((2, 0)), [], r"found shape \[2, 0\]"),
        (np.zeros((2, 1)), ["up"], "found 'up', allowed 'max' or 'min'"),
    ],
)
def test_misfits_are_refused(values: np.ndarray, directions: Any, message: str) -> None:
    for function in (nondominated, pareto_ranks):
        with pytest.raises(ValueError, match=message):
            function(values, directions)


def test_a_reference_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reference: found .*nan.*, allowed finite"):
        hypervolume(np.zeros((1, 2)), ["max", "min"], [0.0, np.nan])


def test_ranks_of_staircases_behind_each_other() -> None:
    """Staircase r is the first one shifted by r in both objectives, so it is front r."""
    steps = np.array([[i, i] for i in range(20)], dtype=float)
    stacked = np.concatenate([steps + np.array([-100, 100]) * r for r in range(15)])
    assert pareto_ranks(stacked, ["max", "min"]).tolist() == np.repeat(range(15), 20).tolist()
    assert nondominated(stacked, ["max", "min"]).tolist() == [True] * 20 + [False] * 280


def random_set(rng: np.random.Generator) -> np.ndarray:
    """Costs [n, m] on a grid of 0 to 4, so that ties abound, some of them NaN or infinite."""
    n, m = rng.integers(0, 15), rng.integers(1, 4)
    costs = rng.integers(0, 5, size=(n, m)).astype(float)
    costs[rng.random((n, m)) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    return costs


def peeled(costs: np.ndarray) -> list[int]:
    """Ranks by definition: one front after another, what is not finite behind all."""
    finite = np.isfinite(costs).all(axis=1)
    better = (costs[:, None] <= costs).all(-1) & (costs[:, None] < costs).any(-1)
    better &= finite[:, None] & finite
    ranks, left = np.full(len(costs), -1), finite.copy()
    while left.any():
        front = left & ~(better & left[:, None]).any(axis=0)
        ranks[front], left = ranks.max() + 1, left & ~front
    ranks[~finite] = ranks.max(initial=-1) + 1
    return [int(rank) for rank in ranks]


def cells_beaten(costs: np.ndarray, m: int) -> int:
    """The volume up to (5, ..., 5) by counting: unit cells whose lower corner a point reaches."""
    corners = np.stack(np.meshgrid(*[np.arange(5)] * m, indexing="ij"), axis=-1).reshape(-1, m)
    finite = costs[np.isfinite(costs).all(axis=1)]
    return int((finite[:, None] <= corners).all(-1).any(0).sum())


def test_thousands_of_random_sets_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        costs = random_set(rng)
        m = costs.shape[1]
        signs = rng.choice([-1.0, 1.0], size=m)
        ways: list[Direction] = ["max" if sign < 0 else "min" for sign in signs]
        ranks = peeled(costs)
        finite = np.isfinite(costs).all(axis=1)
        assert pareto_ranks(costs * signs, ways).tolist() == ranks
        assert (
            nondominated(costs * signs, ways).tolist() == ((np.array(ranks) == 0) & finite).tolist()
        )
        assert hypervolume(costs * signs, ways, 5 * signs) == cells_beaten(costs, m)


def test_ranks_agree_with_optuna() -> None:
    optuna_ranks = pytest.importorskip("optuna.study._multi_objective")._fast_non_domination_rank
    rng = np.random.default_rng(1)
    for _ in range(300):
        n, m = rng.integers(1, 60), rng.integers(1, 4)
        costs = np.round(rng.random((n, m)), 1)
        assert pareto_ranks(costs, ["min"] * m).tolist() == optuna_ranks(costs).tolist()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_front_is_what_an_optuna_study_calls_best() -> None:
    optuna = pytest.importorskip("optuna")
    rng = np.random.default_rng(2)
    for _ in range(20):
        values = np.round(rng.random((40, 2)), 1)
        study = optuna.create_study(directions=["maximize", "minimize"])
        for row in values:
            study.add_trial(optuna.trial.create_trial(values=row.tolist()))
        theirs = {trial.number for trial in study.best_trials}
        assert set(np.flatnonzero(nondominated(values, ["max", "min"]))) == theirs
