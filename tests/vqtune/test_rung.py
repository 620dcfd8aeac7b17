"""Who goes on from a rung: properties that hold in any order of arrival."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis.constraint import Constraint
from vqtune.rung import Arrival, PlaneGroup, Rung, SpaceGroup

ETAS = st.sampled_from([1.5, 2.0, 3.0, 4.0])
LIMIT = Constraint.parse("recon_loss <= 4")
Costs = tuple[float, ...]


@st.composite
def arrivals(draw: st.DrawFn, objectives: int = 2, least: int = 1) -> list[Arrival]:
    """Trials with small whole values, so with ties and duplicates; keys are all different."""
    value = st.integers(0, 7).map(float)
    costs = draw(st.lists(st.tuples(*[value] * objectives), min_size=least, max_size=25))
    keys = draw(st.permutations(range(len(costs))))
    limited = draw(st.lists(value, min_size=len(costs), max_size=len(costs)))
    return [
        Arrival(cost, limit, key / len(costs))
        for cost, limit, key in zip(costs, limited, keys, strict=True)
    ]


def rung_of(trials: Sequence[Arrival], constraint: Constraint | None = None) -> Rung:
    rung = Rung(len(trials[0].costs), constraint)
    for i, trial in enumerate(trials):
        rung.add(f"t{i}", trial)
    return rung


def last_goes_on(
    trials: Sequence[Arrival], eta: float, constraint: Constraint | None = None
) -> bool:
    return rung_of(trials, constraint).goes_on(f"t{len(trials) - 1}", eta)


def beats(one: Arrival, other: Arrival, constraint: Constraint | None = None) -> bool:
    """Constrained dominance: a feasible trial beats one that is not."""
    if constraint is not None:
        assert one.limited is not None
        assert other.limited is not None
        holds = [
            constraint.violation(t.limited, None) <= 0
            for t in (one, other)
            if t.limited is not None
        ]
        if holds[0] != holds[1]:
            return holds[0]
    pairs = list(zip(one.costs, other.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("constraint", [None, LIMIT])
@settings(max_examples=200, deadline=None)
@given(data=st.data(), eta=ETAS)
def test_one_that_dominates_its_rung_goes_on_and_one_with_enough_betters_never_does(
    data: st.DataObject, eta: float, objectives: int, constraint: Constraint | None
) -> None:
    trials = data.draw(arrivals(objectives))
    for i, trial in enumerate(trials):
        here, others = trials[: i + 1], trials[:i]
        goes_on = last_goes_on(here, eta, constraint)
        if all(beats(trial, other, constraint) for other in others):
            assert goes_on
        if sum(beats(other, trial, constraint) for other in others) >= len(here) / eta:
            assert not goes_on


@settings(max_examples=200, deadline=None)
@given(trials=arrivals(least=2), eta=ETAS, data=st.data())
def test_the_best_of_all_goes_on_whenever_it_arrives(
    trials: list[Arrival], eta: float, data: st.DataObject
) -> None:
    best = Arrival((-1.0, -1.0), 0.0, 0.5)
    at = data.draw(st.integers(0, len(trials)))
    assert last_goes_on([*trials[:at], best], eta)


@pytest.mark.parametrize("constraint", [None, LIMIT])
@settings(max_examples=200, deadline=None)
@given(trials=arrivals(least=2), eta=ETAS, data=st.data())
def test_a_decision_depends_on_who_has_arrived_and_not_on_when(
    constraint: Constraint | None, trials: list[Arrival], eta: float, data: st.DataObject
) -> None:
    *others, last = trials
    shuffled = data.draw(st.permutations(others))
    assert last_goes_on([*shuffled, last], eta, constraint) == last_goes_on(trials, eta, constraint)


@settings(max_examples=200, deadline=None)
@given(trials=arrivals(), eta=ETAS)
def test_a_monotone_change_of_an_objective_changes_nothing(
    trials: list[Arrival], eta: float
) -> None:
    changed = [
        Arrival((math.exp(t.costs[0]), 5 * t.costs[1] ** 3 - 1), t.limited, t.key) for t in trials
    ]
    for i in range(1, len(trials) + 1):
        assert last_goes_on(trials[:i], eta) == last_goes_on(changed[:i], eta)


@settings(max_examples=300, deadline=None)
@given(arrivals(), st.floats(0.1, 20))
def test_the_two_ways_of_sorting_agree(trials: list[Arrival], wanted: float) -> None:
    plane, space = PlaneGroup(), SpaceGroup()
    for trial in trials:
        plane.add(trial)
        space.add(trial)
        assert len(plane) == len(space)
    # Equal trials come last in their layer in both, but the plane only estimates in which order.
    assume(len({trial.costs for trial in trials}) == len(trials))
    for trial in trials:
        assert plane.places_before(trial, wanted) == space.places_before(trial, wanted)


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.9])
@pytest.mark.parametrize("eta", [2.0, 3.0])
def test_the_share_that_goes_on_tends_to_one_in_eta(
    objectives: int, correlation: float, eta: float
) -> None:
    if objectives == 1 and correlation:
        pytest.skip("one objective has no correlation")
    rng = np.random.default_rng(0)
    n = 6000 if objectives < 3 else 400
    first = rng.normal(size=(n, 1))
    costs = correlation * first + math.sqrt(1 - correlation**2) * rng.normal(size=(n, objectives))
    costs[:, 0] = first[:, 0]
    assert share_that_goes_on(costs, rng, eta) == pytest.approx(
        1 / eta, abs=0.03 if n > 400 else 0.1
    )


def test_of_equal_trials_one_in_eta_goes_on() -> None:
    share = share_that_goes_on(np.zeros((4000, 2)), np.random.default_rng(0), 3.0)
    assert share == pytest.approx(1 / 3, abs=0.03)


def share_that_goes_on(costs: np.ndarray, rng: np.random.Generator, eta: float) -> float:
    rung, went = Rung(costs.shape[1]), []
    for i, (cost, key) in enumerate(zip(costs.tolist(), rng.random(len(costs)), strict=True)):
        rung.add(f"t{i}", Arrival(tuple(cost), None, float(key)))
        went.append(rung.goes_on(f"t{i}", eta))
    return float(np.mean(went[len(went) // 10 :]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_comes_last(value: float) -> None:
    trials = [Arrival((value, 0.0), None, 0.1), Arrival((0.0, value), None, 0.2)]
    rung = rung_of(trials)
    assert not rung.goes_on("t0", 2.0)
    assert not rung.goes_on("t1", 2.0)
    rung.add("worst", Arrival((1e308, 1e308), None, 0.9))
    assert rung.goes_on("worst", 2.0)


def test_feasible_trials_come_first_however_far_the_others_are_ahead() -> None:
    trials = [Arrival((0.0, float(i)), 9.0, i / 9) for i in range(8)]
    feasible = Arrival((9.0, 9.0), 4.0, 0.99)
    assert last_goes_on([*trials, feasible], 4.0, LIMIT)
    assert not last_goes_on([*trials, feasible], 4.0)
    rung = rung_of([*trials, feasible], LIMIT)
    assert rung.goes_on("t0", 4.0)  # the best of the others comes second of nine


def test_what_is_feasible_is_known_when_the_baseline_has_arrived() -> None:
    rung = Rung(2, Constraint.parse("recon_loss <= 1.0*baseline"))
    for i in range(4):
        rung.add(f"far{i}", Arrival((0.0, float(i)), 0.9, i / 9))
    rung.add("near", Arrival((9.0, 9.0), 0.5, 0.8))
    assert not rung.goes_on("near", 3.0)
    rung.add("baseline", Arrival((8.0, 8.0), 0.6, 0.7), baseline=True)
    assert rung.goes_on("near", 3.0)
    assert not rung.goes_on("far0", 3.0)


def test_a_wide_front_is_spread_by_volume() -> None:
    """Of a line with a gap, those beside the gap add most volume."""
    steps = [*range(10), *range(60, 70)]
    trials = [Arrival((float(s), -float(s)), None, i / 20) for i, s in enumerate(steps)]
    filled = [Arrival((float(s), 1000.0), None, 0.5) for s in range(10, 60)]
    rung = rung_of([*filled, *trials])
    beside = [f"t{50 + 9}", f"t{50 + 10}"]
    # All of the line are of rank 0; of them only the first few of 70 trials go on.
    chosen = [f"t{50 + i}" for i in range(20) if rung.goes_on(f"t{50 + i}", 15.0)]
    assert set(beside) & set(chosen)
    assert len(chosen) == 5


@settings(max_examples=50, deadline=None)
@given(trials=arrivals(least=2), eta=ETAS, data=st.data())
def test_pickled_in_between(trials: list[Arrival], eta: float, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(trials)))
    through, other = Rung(2, LIMIT), Rung(2, LIMIT)
    for i, trial in enumerate(trials):
        if i == cut:
            other = pickle.loads(pickle.dumps(other))
        through.add(f"t{i}", trial)
        other.add(f"t{i}", trial)
        assert through.goes_on(f"t{i}", eta) == other.goes_on(f"t{i}", eta)


def test_random_rungs() -> None:
    """A million of them, since every arrival makes one; checked at once."""
    rungs = 200_000
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 6, (rungs, 5, 2)).astype(float)
    keys = rng.random((rungs, 5))
    eta = 3.0
    went = np.zeros((rungs, 5), dtype=bool)
    for r, (rows, tie_breaks) in enumerate(zip(costs.tolist(), keys.tolist(), strict=True)):
        rung = Rung(2)
        for i in range(5):
            rung.add(str(i), Arrival((rows[i][0], rows[i][1]), None, tie_breaks[i]))
            went[r, i] = rung.goes_on(str(i), eta)
    for i in range(5):
        mine, others = costs[:, i, None], costs[:, :i]
        worse = (others >= mine).all(2) & (others > mine).any(2)
        better = (others <= mine).all(2) & (others < mine).any(2)
        assert went[worse.all(1), i].all()
        assert not went[better.sum(1) >= (i + 1) / eta, i].any()
