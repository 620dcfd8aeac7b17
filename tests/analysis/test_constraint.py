"""Constraints: read as they are written, and violated by what is beyond the limit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.constraint import ALLOWED, Constraint

constraints = st.builds(
    Constraint,
    metric=st.from_regex(r"[A-Za-z_][A-Za-z0-9_/]{0,30}", fullmatch=True),
    sign=st.sampled_from(["<=", ">="]),
    # As many digits as are written.
    number=st.floats(-1e9, 1e9).map(lambda number: float(f"{number:g}")),
    relative=st.booleans(),
)
numbers = st.floats(-1e6, 1e6)


@given(constraints)
def test_what_is_written_is_read_back(constraint: Constraint) -> None:
    assert Constraint.parse(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recon_loss <= 1.0*baseline", Constraint("recon_loss", "<=", 1.0, True)),
        ("  recon_loss<=1.05 * baseline ", Constraint("recon_loss", "<=", 1.05, True)),
        ("usage >= .25", Constraint("usage", ">=", 0.25, False)),
        ("stream_0/usage >= 2e-1", Constraint("stream_0/usage", ">=", 0.2, False)),
        ("bits_per_frame <= -3", Constraint("bits_per_frame", "<=", -3.0, False)),
    ],
)
def test_forms_that_are_read(text: str, expected: Constraint) -> None:
    assert Constraint.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "recon_loss", "recon_loss <= ", "recon_loss < 1", "recon_loss == 1", "<= 1"),
        *("recon_loss <= baseline", "recon_loss <= 1*base", "recon_loss <= 1*baseline*2"),
        *("recon_loss <= nan", "recon_loss <= 1e999", "recon_loss <= 1\nusage >= 1", "a b <= 1"),
    ],
)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: ") as caught:
        Constraint.parse(text)
    assert str(caught.value) == f"found {text!r}, allowed: {ALLOWED}"


@given(constraints, numbers, numbers)
def test_a_violation_is_the_distance_beyond_the_limit(
    constraint: Constraint, value: float, baseline: float
) -> None:
    limit = constraint.number * baseline if constraint.relative else constraint.number
    violation = constraint.violation(value, baseline)
    assert (violation <= 0) == (value <= limit if constraint.sign == "<=" else value >= limit)
    assert abs(violation) == pytest.approx(abs(value - limit))


@given(numbers, numbers.filter(bool))
def test_a_larger_excess_is_a_larger_violation(limit: float, more: float) -> None:
    constraint = Constraint("a", "<=", limit, relative=False)
    small, large = sorted([constraint.violation(limit + d, None) for d in (0.0, abs(more))])
    assert small <= 0 <= large
    assert Constraint("a", ">=", limit, relative=False).violation(limit - abs(more), None) >= 0


@pytest.mark.parametrize("baseline", [None, math.nan, math.inf])
def test_without_a_baseline_a_ratio_holds_for_all(baseline: float | None) -> None:
    constraint = Constraint("recon_loss", "<=", 1.0, relative=True)
    assert constraint.violation(1e9, baseline) == 0.0
    assert Constraint("recon_loss", "<=", 1.0, relative=False).violation(3.0, baseline) == 2.0


@pytest.mark.parametrize("sign", ["<=", ">="])
def test_no_number_is_infinitely_far_beyond(sign: str) -> None:
    constraint = Constraint.parse(f"recon_loss {sign} 1")
    assert constraint.violation(math.nan, 0.5) == math.inf
