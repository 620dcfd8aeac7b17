"""Importance against shares of variance in closed form, and against Optuna's own evaluators."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from designed import Config, configs, searched
from run_folder import RunFolder

from analysis.factors import factors
from analysis.fidelity import MOST
from analysis.importance import COLUMNS, fanova, importance, ped_anova

WEIGHTS = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}


def uniform(trials: int, names: str, seed: int = 0) -> list[dict[str, float]]:
    chance = np.random.default_rng(seed)
    return [{name: float(chance.random()) for name in names} for _ in range(trials)]


def linear(rows: list[dict[str, float]]) -> np.ndarray:
    return np.array([sum(WEIGHTS.get(name, 0.0) * row[name] for name in row) for row in rows])


def test_shares_of_a_sum_are_those_of_its_variance() -> None:
    rows = uniform(500, "abcdefgh")
    shares, explained = fanova(factors(rows), linear(rows))
    total = sum(weight**2 for weight in WEIGHTS.values())
    for name, weight in WEIGHTS.items():
        assert shares[name] == pytest.approx(weight**2 / total, abs=0.06)
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares[name] for name in "efgh") < shares["d"] / 3
    assert explained > 0.85


def test_fanova_agrees_with_optunas_where_nothing_is_conditional() -> None:
    rows = uniform(150, "abcd")
    values = linear(rows) + np.array([3 * np.sin(6 * row["c"]) for row in rows])
    shares, _ = fanova(factors(rows), values)
    optunas = normalised(
        optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study(rows, values))
    )
    for name in "abcd":
        assert shares[name] == pytest.approx(optunas[name], abs=0.05)


def test_ped_anova_is_optunas() -> None:
    rows = uniform(200, "abcd")
    values = linear(rows)
    optunas = normalised(
        optuna.importance.PedAnovaImportanceEvaluator().evaluate(study(rows, values))
    )
    shares = ped_anova(factors(rows), values)
    # Domains are those of the values that were tried, not of the space.
    for name in "abcd":
        assert shares[name] == pytest.approx(optunas[name], abs=0.02)
    assert list(shares) == ["a", "b", "c", "d"]


def test_ped_anova_asks_for_the_better_end() -> None:
    """What sets the least apart is not what sets the largest apart."""
    rows = uniform(300, "ab")
    values = np.array([row["a"] if row["a"] > 0.5 else 0.5 - row["b"] / 100 for row in rows])
    assert ped_anova(factors(rows), values)["b"] > 0.5
    assert ped_anova(factors(rows), -values)["a"] > 0.9


def conditional(on: float, inner: float, trials: int = 500) -> dict[str, float]:
    """Shares for 2x + inner * y, y existing in a share `on` of the trials alone."""
    chance = np.random.default_rng(1)
    made: list[dict[str, Any]] = []
    values = []
    for x, y, u in chance.random((trials, 3)):
        there = u < on
        made.append({"x": x, "block": {"y": y} if there else None})
        values.append(2 * x + inner * (y - 0.5) * there)
    return fanova(factors(made), np.array(values))[0]


@pytest.mark.parametrize("on", [0.3, 0.6])
def test_what_is_in_a_branch_counts_by_what_it_explains_overall(on: float) -> None:
    inner = 5.0
    shares = conditional(on, inner)
    parts = {"x": 4.0, "block": 0.0, "block.y": on * inner**2}
    for name, part in parts.items():
        assert shares[name] == pytest.approx(part / sum(parts.values()), abs=0.06)


def test_a_choice_counts_by_what_it_does_not_by_what_is_in_it() -> None:
    chance = np.random.default_rng(2)
    made: list[dict[str, Any]] = []
    values = []
    for x, y, u in chance.random((400, 3)):
        made.append({"x": x, "block": {"y": y} if u < 0.5 else None})
        values.append(2 * x + 2 * (u < 0.5) + (y - 0.5) * (u < 0.5))
    shares, _ = fanova(factors(made), np.array(values))
    parts = {"x": 4 / 12, "block": 4 / 4, "block.y": 0.5 / 12}
    for name, part in parts.items():
        assert shares[name] == pytest.approx(part / sum(parts.values()), abs=0.06)


def test_main_effects_are_those_of_a_full_grid() -> None:
    """On every combination of a grid the shares are those of a classical analysis of variance."""
    levels = {"a": [0.0, 1.0, 2.0], "b": ["p", "q"], "c": [1.0, 5.0, 6.0, 9.0]}
    rows = [dict(zip(levels, row, strict=True)) for row in itertools.product(*levels.values())] * 6
    effect = {"p": 0.0, "q": 1.5}
    values = np.array([row["a"] ** 2 + effect[row["b"]] + 0.3 * row["c"] for row in rows])
    shares, _ = fanova(factors(rows), values)
    parts = {
        "a": np.var([0, 1, 4]),
        "b": np.var([0, 1.5]),
        "c": np.var([0.3, 1.5, 1.8, 2.7]),
    }
    for name, part in parts.items():
        assert shares[name] == pytest.approx(part / sum(parts.values()), abs=0.02)


def tune(config: Config, chance: np.random.Generator) -> None:
    config["training"]["lr"] = float(10 ** chance.uniform(-4, -2))
    config["codebook"]["commitment"]["beta"] = float(chance.uniform(0.1, 2.0))
    config["seed"] = int(chance.integers(1000))
    if chance.random() < 0.5:
        config["codebook"]["respawn"] = {"period": int(chance.integers(100, 3200)), "buffer": 0}


def results(config: Config) -> dict[str, float]:
    respawn = config["codebook"]["respawn"]
    return {
        "perplexity": 50 + (300 - respawn["period"] / 20 if respawn else 0),
        "recon_loss": 1 + np.log10(config["training"]["lr"]) / 10,
    }


def test_a_run_from_its_folder(run_folder: RunFolder) -> None:
    made = configs(60, tune)
    records = searched(run_folder, made, results)
    table = importance(records)
    assert tuple(table.columns) == COLUMNS
    first = table.groupby("objective").first()
    assert first["parameter"].to_dict() == {
        "perplexity": "codebook.respawn",
        "recon_loss": "training.lr",
    }
    period = table.set_index(["objective", "parameter"]).loc[
        ("perplexity", "codebook.respawn.period")
    ]
    assert period["branch"] == "codebook.respawn on"
    assert period["active"] == sum(config["codebook"]["respawn"] is not None for config in made)
    assert (table["trials"] == 60).all() and (table["samples"] == 1000).all()
    sums = table.groupby("objective")[["ped_anova", "fanova"]].sum()
    np.testing.assert_allclose(sums, 1)
    assert set(table["parameter"]) == {
        "training.lr",
        "codebook.commitment.beta",
        "codebook.respawn",
        "codebook.respawn.period",
    }
    pd.testing.assert_frame_equal(table, importance(records))


def test_noise_is_told_from_knowledge(run_folder: RunFolder) -> None:
    chance = np.random.default_rng(0)
    table = importance(
        searched(run_folder, configs(40, tune), lambda _: {"perplexity": chance.random()})
    )
    assert (table["explained"] < 0.2).all()
    assert table["note"].str.contains("explains little").all()
    assert set(table["objective"]) == {"perplexity"}  # recon_loss is the same in all


def test_the_rest_of_optuna_goes_on_talking(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("optuna")
    before = logger.level
    rows = uniform(20, "ab")
    ped_anova(factors(rows), linear(rows))
    assert logger.level == before
    assert not caplog.records
    assert MOST >= 500


def study(rows: list[dict[str, float]], values: np.ndarray) -> optuna.Study:
    made = optuna.create_study(direction="minimize")
    space = dict.fromkeys(rows[0], optuna.distributions.FloatDistribution(0, 1))
    for row, value in zip(rows, values, strict=True):
        made.add_trial(
            optuna.create_trial(value=float(value), params=dict(row), distributions=dict(space))
        )
    return made


def normalised(shares: dict[str, float]) -> dict[str, float]:
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def test_a_technique_is_not_credited_for_what_excludes_it() -> None:
    """Groups ruin everything; growth does nothing but is never seen with groups."""
    chance = np.random.default_rng(4)
    made: list[dict[str, Any]] = []
    values = []
    for grouped, grown, x in zip(
        chance.random(300) < 0.5, chance.random(300) < 0.5, chance.random(300), strict=True
    ):
        made.append(
            {"groups": {} if grouped else None, "growth": {} if grown and not grouped else None}
            | {"x": x}
        )
        values.append(x + 10 * (not grouped))
    shares, _ = fanova(factors(made), np.array(values))
    assert shares["groups"] > 0.9
    assert shares["growth"] < 0.001
