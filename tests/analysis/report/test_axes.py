from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.report.axes import crosses, dots, make_axis, path, spread_out

finite = st.floats(-1e140, 1e140)


@given(st.lists(finite, max_size=20))
def test_every_value_finds_room_and_ticks_lie_on_the_axis(values: list[float]) -> None:
    axis = make_axis("x", values)
    assert axis.low < axis.high
    assert all(0 <= axis.place(value) <= 100 for value in values)
    assert all(0 <= tick.at <= 100 for tick in axis.ticks)


@given(st.lists(st.floats(1e-4, 1e4), min_size=2, max_size=20))
def test_a_logarithmic_axis_has_room_for_every_value_too(values: list[float]) -> None:
    axis = make_axis("x", values, log=True)
    assert axis.log
    assert all(0 <= axis.place(value) <= 100 for value in values)


@given(st.lists(st.floats(), max_size=20))
def test_no_value_is_too_strange_for_an_axis(values: list[float]) -> None:
    axis = make_axis("x", values)
    assert axis.low < axis.high
    assert all(-10000 <= axis.place(value) <= 10000 for value in values if math.isfinite(value))


def test_places_are_shares_of_the_range() -> None:
    axis = make_axis("x", [0, 10], margin=0.0)
    assert [axis.place(value) for value in (0, 2.5, 10, 20)] == [0, 25, 100, 200]
    assert [tick.label for tick in axis.ticks] == ["0", "2", "4", "6", "8", "10"]
    log = make_axis("x", [1, 100], log=True, margin=0.0)
    assert [log.place(value) for value in (1, 10, 100)] == [0, 50, 100]


def test_an_outlier_makes_an_axis_logarithmic_unless_values_are_negative() -> None:
    assert make_axis("x", [1, 2, 3, 1000]).log
    assert not make_axis("x", [1, 2, 3, 4]).log
    assert not make_axis("x", [-1, 2, 3, 1000]).log


def test_nothing_and_values_that_are_no_numbers_give_an_axis_all_the_same() -> None:
    for values in ([], [math.nan], [math.inf, -math.inf], [0.0], [0.0, 0.0]):
        for zero in (False, True):
            axis = make_axis("x", values, zero=zero)
            assert math.isfinite(axis.low) and axis.low < axis.high


@given(st.lists(st.floats(0, 100), max_size=6), st.floats(1, 5))
def test_tags_are_moved_apart_in_their_order(places: list[float], gap: float) -> None:
    moved = spread_out(places, gap)
    order = sorted(range(len(places)), key=places.__getitem__)
    ordered = [moved[i] for i in order]
    assert all(b - a >= gap * 0.9 for a, b in pairwise(ordered))


def test_places_that_are_apart_stay() -> None:
    assert spread_out([10.0, 50.0, 30.0], 5.0) == [10.0, 50.0, 30.0]


@pytest.mark.parametrize(
    ("places", "told"),
    [([], ""), ([(0, 0)], "M0 1000L0 1000"), ([(0, 0), (50, 100)], "M0 1000L500 0")],
)
def test_paths_run_upwards_in_a_thousandth_of_the_chart(
    places: list[tuple[float, float]], told: str
) -> None:
    assert path(places) == told


def test_dots_and_crosses_are_one_path_each() -> None:
    assert dots([(0, 0), (100, 100)]) == "M0 1000h0M1000 0h0"
    assert crosses([(50, 50)]) == "M493 493l14 14m0-14l-14 14"
