"""Factors as a matrix, and the matrix were a factor set otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.design import ABSENT, Design
from analysis.factors import factors

CONFIGS: list[dict[str, Any]] = [
    {
        "update": {"kind": kind},
        "respawn": {"period": period, "jitter": period / 100} if period else None,
        "lr": lr,
    }
    for kind, period, lr in [
        ("ema", 0, 0.1),
        ("fsq", 5, 0.2),
        ("lfq", 7, 0.3),
        ("ema", 8, 0.4),
        ("lfq", 0, 0.5),
        ("ema", 5, 0.2),
    ]
]


def design() -> Design:
    return Design(factors([{**c, "noise": i**2 % 5} for i, c in enumerate(CONFIGS)]))


def test_columns() -> None:
    found = design()
    update, period = (found.matrix[:, found.columns[n]] for n in ("update", "respawn.period"))
    assert update.tolist() == np.eye(3)[[0, 1, 2, 0, 2, 0]].tolist()
    np.testing.assert_allclose(period[:, 0], [ABSENT, 0, 2 / 3, 1, ABSENT, 0], rtol=1e-6)
    assert found.is_within("respawn.period", "respawn")
    assert not found.is_within("lr", "respawn")


def test_what_is_switched_off_loses_its_settings_and_nothing_else_changes() -> None:
    found = design()
    rows = found.matrix.copy()
    found.put(rows, "respawn", 0.0, np.random.default_rng(0))
    own = found.column_numbers(["respawn"])
    assert own == found.column_numbers(["respawn", "respawn.period"])[: len(own)]
    inner = found.column_numbers(["respawn.period"])
    assert (rows[:, inner] == ABSENT).all()
    others = [i for i in range(rows.shape[1]) if i not in own]
    np.testing.assert_array_equal(rows[:, others], found.matrix[:, others])


def test_what_is_switched_on_comes_with_the_settings_of_a_trial_that_has_it() -> None:
    found = design()
    rows = np.tile(found.matrix, (20, 1))
    found.put(rows, "respawn", 1.0, np.random.default_rng(0))
    own = found.column_numbers(["respawn"])
    there = {tuple(row) for row in found.matrix[found.factors["respawn"].codes == 1][:, own]}
    assert {tuple(row) for row in rows[:, own]} == there


def test_points() -> None:
    found = design()
    np.testing.assert_array_equal(found.points("update"), [0, 1, 2])
    np.testing.assert_allclose(found.points("lr"), [0, 0.25, 0.5, 0.75, 1])
    many = Design(factors([{"x": float(x)} for x in range(30)]))
    np.testing.assert_allclose(many.points("x"), (np.arange(8) + 0.5) / 8)
    assert Design([]).matrix.size == 0


def test_what_a_trial_could_have() -> None:
    """`growth` is for one codebook alone: it never comes with groups or levels."""
    layouts = ["one", "one", "growth", "growth", "groups", "residual"] * 4
    names = ("growth", "groups", "residual")
    found = Design(
        factors(
            [
                {name: {} if name == layout else None for name in names}
                | {"kmeans": {} if i > 11 else None, "lr": float(i)}
                for i, layout in enumerate(layouts)
            ]
        )
    )
    one_codebook = np.array([layout in ("one", "growth") for layout in layouts])
    np.testing.assert_array_equal(found.varies("growth"), one_codebook)
    off, on = found.allowed("growth")
    assert off.all()
    np.testing.assert_array_equal(on, one_codebook)
    assert found.varies("kmeans").all()
    assert found.varies("lr").all()


def test_what_is_too_rare_to_be_seen_together_is_not_excluded() -> None:
    rare = [{"a": {} if i < 4 else None, "b": {} if 3 < i < 7 else None} for i in range(20)]
    assert Design(factors(rare)).varies("a").all()
