"""Pairs that act together: the right ones, as strong as they are, and none where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from designed import Config, configs, searched
from run_folder import RunFolder

from analysis.factors import factors
from analysis.interactions import COLUMNS, interactions, pair_strengths


def drawn(trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """Six numbers and four techniques, two of which have a setting."""
    chance = np.random.default_rng(seed)
    return [
        {name: float(chance.random()) for name in "uvwxyz"}
        | {name: {} if chance.random() < 0.5 else None for name in "pq"}
        | {name: {"s": float(chance.random())} if chance.random() < 0.6 else None for name in "rt"}
        for _ in range(trials)
    ]


def additive(row: dict[str, Any]) -> float:
    return float(3 * row["x"] + 2 * row["y"] ** 2 + (row["p"] is not None) + abs(row["z"] - 0.5))


def strengths(trials: int, extra: Any, noise: float = 0.1, seed: int = 0) -> pd.DataFrame:
    rows = drawn(trials, seed)
    chance = np.random.default_rng(seed + 1)
    values = [additive(row) + extra(row) + chance.normal(0, noise) for row in rows]
    return pair_strengths(factors(rows), np.array(values))


def product(row: dict[str, Any]) -> float:
    return float(8 * (row["u"] - 0.5) * (row["v"] - 0.5))


def both_or_none(row: dict[str, Any]) -> float:
    """Neither technique does anything alone."""
    return float((row["p"] is None) == (row["q"] is None))


def in_a_branch(row: dict[str, Any]) -> float:
    return 0.0 if row["r"] is None else float(10 * (row["r"]["s"] - 0.5) * (row["w"] - 0.5))


@pytest.mark.parametrize("trials", [80, 250])
@pytest.mark.parametrize(
    ("extra", "pair"),
    [(product, {"u", "v"}), (both_or_none, {"p", "q"}), (in_a_branch, {"r.s", "w"})],
)
def test_the_pair_that_acts_together_comes_first(trials: int, extra: Any, pair: set[str]) -> None:
    table = strengths(trials, extra)
    assert {table["first"][0], table["second"][0]} == pair
    assert table["p"][0] < 0.01
    assert table["strength"].iloc[1:].max() < 0.2 * table["strength"][0] or len(table) == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_sum_has_none(seed: int) -> None:
    table = strengths(200, lambda _: 0.0, seed=seed)
    assert table["strength"].sum() < 0.01
    assert len(table) <= 1


def test_strength_is_the_share_of_variance() -> None:
    """For x + c (u - 1/2)(v - 1/2) the pair has c²/144 of 1/12 + c²/144."""
    rows = drawn(400)
    c = 4.0
    values = np.array([row["x"] + c * (row["u"] - 0.5) * (row["v"] - 0.5) for row in rows])
    table = pair_strengths(factors(rows), values)
    assert table["strength"][0] == pytest.approx((c**2 / 144) / (1 / 12 + c**2 / 144), abs=0.08)


def test_pairs_of_which_one_decides_the_other_are_left_out() -> None:
    rows = drawn(150)
    values = np.array([0.0 if row["r"] is None else row["r"]["s"] for row in rows])
    table = pair_strengths(factors(rows), values)
    assert not ((table["first"] == "r") & (table["second"] == "r.s")).any()
    exclusive = [
        {"p": {} if i % 3 == 0 else None, "q": {} if i % 3 == 1 else None} for i in range(60)
    ]
    values = np.random.default_rng(0).random(60) + [i % 3 == 0 for i in range(60)]
    assert pair_strengths(factors(exclusive), values).empty


def test_a_run_from_its_folder(run_folder: RunFolder) -> None:
    def change(config: Config, chance: np.random.Generator) -> None:
        config["training"]["lr"] = float(chance.uniform(0.1, 1))
        config["codebook"]["respawn"] = {} if chance.random() < 0.5 else None
        config["codebook"]["kmeans"] = {} if chance.random() < 0.5 else None

    def results(config: Config) -> dict[str, float]:
        both = config["codebook"]["respawn"] == config["codebook"]["kmeans"]
        return {"perplexity": 100 * both, "recon_loss": config["training"]["lr"]}

    records = searched(run_folder, configs(60, change), results)
    table = interactions(records)
    assert tuple(table.columns) == COLUMNS
    [row] = table.to_dict("records")
    assert row["objective"] == "perplexity"
    assert {row["first"], row["second"]} == {"codebook.respawn", "codebook.kmeans"}
    assert row["strength"] == pytest.approx(1, abs=0.1)
    assert (row["trials"], row["samples"]) == (60, 1000)
    pd.testing.assert_frame_equal(table, interactions(records))
