"""A claim against other seeds: the rule in closed form, and how often it is wrong."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.claim import LEAST, LEVEL, held_against

# For n = 2 Student's t has one degree of freedom and the closed form tan(pi (p - 1/2)).
BOUND_OF_TWO = math.tan(math.pi * (LEVEL - 0.5)) * math.sqrt(1.5)


@pytest.mark.parametrize(("better", "sign"), [("max", 1), ("min", -1)])
def test_the_bound_in_closed_form(better: str, sign: int) -> None:
    """Two seeds 1 from their mean of 10 have the deviation sqrt(2)."""
    bound = BOUND_OF_TWO * math.sqrt(2)
    for factor, met in ((0.999, True), (1.001, False), (-100, True)):
        verdict = held_against(10 + sign * factor * bound, [9.0, 11.0], better)  # type: ignore[arg-type]
        assert verdict.met is met
        assert (verdict.mean, verdict.deviation) == (10, pytest.approx(math.sqrt(2)))
        assert verdict.behind == pytest.approx(factor * bound)


@pytest.mark.parametrize(
    ("claimed", "values", "better", "met"),
    [
        (508.0, [505.0, 505.0], "max", True),  # active codes; the deviation is 0
        (508.0, [505.0, 505.0, 505.0], "max", True),
        (508.0, [497.0, 497.0], "max", False),
        (0.5, [0.5099, 0.5099], "min", True),
        (0.5, [0.5101, 0.5101], "min", False),
        (-0.5, [-0.4901, -0.4901], "min", True),
        (-0.5, [-0.4899, -0.4899], "min", False),
    ],
)
def test_seeds_that_tie_are_not_sure_of_the_last_percent(
    claimed: float, values: list[float], better: Literal["max", "min"], met: bool
) -> None:
    assert held_against(claimed, values, better).met is met


def test_the_least_difference_is_that_of_a_deviation_of_one_percent() -> None:
    """Its bound with two seeds, were it known instead of estimated."""
    bound = NormalDist().inv_cdf(LEVEL) * 0.01 * math.sqrt(1 + 1 / 2)
    assert pytest.approx(bound, rel=0.01) == LEAST


def test_one_seed_only_shows_the_difference() -> None:
    verdict = held_against(100.0, [97.0], "max")
    assert verdict.met is None
    assert math.isnan(verdict.deviation)
    assert str(verdict) == "3.0% worse"
    assert str(held_against(100.0, [97.0], "min")) == "3.0% better"
    assert str(held_against(100.0, [100.0], "min")) == "equal"


def test_the_words() -> None:
    assert str(held_against(130.0, [98.0, 100.0, 102.0], "max")) == (
        "not met: 23.1% worse, 15.0 deviations"
    )
    assert str(held_against(130.0, [98.0, 100.0, 102.0], "min")) == "met: 23.1% better"
    assert str(held_against(101.0, [98.0, 100.0, 102.0], "max")) == "met within chance: 1.0% worse"
    assert str(held_against(100.0, [100.0, 100.0], "max")) == "met: equal"
    assert str(held_against(101.0, [100.0, 100.0], "max")) == "met within chance: 1.0% worse"
    assert str(held_against(110.0, [100.0, 100.0], "max")) == "not met: 9.1% worse"
    assert str(held_against(0.0, [1.0, 1.0], "min")) == "not met: 1 worse"


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6), st.floats(-1e6, 1e6))
def test_a_claim_that_is_no_better_is_met(values: list[float], claimed: float) -> None:
    if claimed <= np.mean(values) - 1:
        assert held_against(claimed, values, "max").met
    if claimed >= np.mean(values) + 1:
        assert held_against(claimed, values, "min").met


@pytest.mark.parametrize("n", [2, 3, 6])
def test_an_honest_claim_is_refused_at_most_once_in_twenty(n: int) -> None:
    rng = np.random.default_rng(0)
    # The least difference is next to nothing for the first, and 1.6 deviations for the other.
    for center, at_least in ((0.0, 1 - LEVEL - 0.012), (400.0, 0.0)):
        draws = rng.normal(center, 5, (4000, n + 1))
        unmet = [not held_against(row[0], row[1:].tolist(), "max").met for row in draws]
        assert at_least <= np.mean(unmet) <= 1 - LEVEL + 0.012
