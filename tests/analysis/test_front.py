"""Fronts, ranks and volumes against definitions written out; the front's table and its order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folder import RunFolder

from analysis.front import (
    Direction,
    Objective,
    hypervolume,
    nondominated,
    objectives,
    pareto_ranks,
)
from analysis.ranking import COLUMNS, best, front_table, top_table
from analysis.records import Records, read_run

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


# --- the table -----------------------------------------------------------------------------------


@pytest.fixture
def records(run_folder: RunFolder, config: dict[str, Any]) -> Records:
    run_folder.complete("base", 40.0, 0.5, role="baseline")
    config["codebook"]["commitment"]["beta"] = 2.0
    run_folder.complete("cheap", 90.0, 0.4, config=config)
    run_folder.complete("twin", 90.0, 0.4)
    run_folder.complete("rich", 200.0, 0.45)
    run_folder.complete("harm", 400.0, 0.6)
    run_folder.complete("harmer", 450.0, 0.7)
    run_folder.complete("beaten", 80.0, 0.55)
    run_folder.trial("early", {"samples": 500, "perplexity": 500.0, "recon_loss": 0.1})
    run_folder.trial("lost", {"samples": 1000, "perplexity": float("nan"), "recon_loss": 0.1})
    return read_run(run_folder.path)


def test_table_is_the_front_and_the_baseline_by_loss(records: Records) -> None:
    table = front_table(records)
    assert tuple(table.columns) == COLUMNS
    assert table["trial_id"].tolist() == ["cheap", "twin", "rich", "base", "harm", "harmer"]
    assert table["on_front"].tolist() == [True, True, True, False, True, True]
    assert table["harmless"].tolist() == [True, True, True, True, False, False]
    assert table["perplexity_x"].tolist() == [2.25, 2.25, 5.0, 1.0, 10.0, 11.25]
    assert table["recon_loss_x"].tolist() == pytest.approx([0.8, 0.8, 0.9, 1.0, 1.2, 1.4])
    assert table["technique"].tolist() == ["β=2", *["plain"] * 5]
    assert table["config"][0]["codebook"]["commitment"] == {"beta": 2.0}


def test_best_puts_harmless_gain_before_little_harm(records: Records) -> None:
    order = ["rich", "cheap", "twin", "harm", "harmer"]
    for n in (0, 1, 3, 5, 9):
        assert best(records, n)["trial_id"].tolist() == order[:n]
    assert tuple(best(records, 2).columns) == COLUMNS


def test_baseline_on_the_front_is_one_row(run_folder: RunFolder) -> None:
    run_folder.complete("base", 40.0, 0.5, role="baseline")
    run_folder.complete("other", 50.0, 0.6)
    table = front_table(read_run(run_folder.path))
    assert table["trial_id"].tolist() == ["base", "other"]
    assert table["on_front"].all()


def test_without_a_complete_baseline_there_are_no_ratios(run_folder: RunFolder) -> None:
    run_folder.trial("base", {"samples": 500, "done": True}, role="baseline")
    run_folder.complete("a", 90.0, 0.4)
    run_folder.complete("b", 99.0, 0.6)
    records = read_run(run_folder.path)
    table = front_table(records)
    assert table["trial_id"].tolist() == ["a", "b"]
    assert table[["perplexity_x", "recon_loss_x"]].isna().all(axis=None)
    assert not table["harmless"].any()
    assert best(records, 1)["trial_id"].tolist() == ["a"]


def test_a_run_without_complete_trials_has_an_empty_table(run_folder: RunFolder) -> None:
    assert front_table(read_run(run_folder.path)).empty
    run_folder.trial("a", {"samples": 10})
    records = read_run(run_folder.path)
    assert tuple(front_table(records).columns) == COLUMNS
    assert front_table(records).empty
    assert best(records, 3).empty


def test_objectives_come_from_the_spec(run_folder: RunFolder) -> None:
    run_folder.spec(objectives={"usage": "max", "seconds": "min"})
    run_folder.trial("slow", {"samples": 1000, "usage": 0.9, "seconds": 9.0, "perplexity": 9.0})
    run_folder.trial("fast", {"samples": 1000, "usage": 0.8, "seconds": 1.0, "perplexity": 8.0})
    run_folder.trial("bad", {"samples": 1000, "usage": 0.7, "seconds": 2.0, "perplexity": 99.0})
    records = read_run(run_folder.path)
    assert set(objectives(records.spec)) == {Objective("usage", "max"), Objective("seconds", "min")}
    assert set(front_table(records)["trial_id"]) == {"slow", "fast"}


def test_the_top_keeps_the_baseline_beside_it(run_folder: RunFolder) -> None:
    full = {"samples": 1000, "done": True}
    run_folder.trial("b", full | {"perplexity": 10.0, "recon_loss": 0.5}, role="baseline")
    run_folder.trial("x", full | {"perplexity": 30.0, "recon_loss": 0.4})
    run_folder.trial("y", full | {"perplexity": 40.0, "recon_loss": 0.45})
    records = read_run(run_folder.path)
    assert top_table(records, 1)["trial_id"].tolist() == ["y", "b"]
    assert (
        top_table(records, None)["trial_id"].tolist() == front_table(records)["trial_id"].tolist()
    )
