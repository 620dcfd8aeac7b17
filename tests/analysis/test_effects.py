"""What techniques are worth, where the difference of two means is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from designed import Config, configs, searched
from run_folder import RunFolder

from analysis.effects import COLUMNS, matched_effect, technique_effects
from analysis.factors import factors
from analysis.switches import switches

EMA = {"kind": "ema", "decay": 0.99}


def favoured(config: Config, chance: np.random.Generator) -> None:
    """As a sampler that has learned: respawn goes to good learning rates, k-means to respawn."""
    lr = config["training"]["lr"] = float(10 ** chance.uniform(-4, -2))
    good = abs(math.log10(lr) + 3) < 0.5
    codebook = config["codebook"]
    if chance.random() < (0.85 if good else 0.15):
        codebook["respawn"] = {"period": int(chance.integers(100, 3200))}
    if chance.random() < (0.85 if codebook["respawn"] else 0.15):
        codebook["kmeans"] = {"latents": 100}
    if chance.random() < 0.5:
        codebook["entropy"] = {"weight": 0.1}


def results(config: Config) -> dict[str, float]:
    codebook = config["codebook"]
    lr = 100 - 100 * abs(math.log10(config["training"]["lr"]) + 3)
    respawn, kmeans = codebook["respawn"] is not None, codebook["kmeans"] is not None
    entropy = codebook["entropy"] is not None
    return {
        "perplexity": 200 + lr + 30 * respawn + 60 * kmeans + 0 * entropy,
        "recon_loss": 0.5 - lr / 1000 + 0.1 * entropy,
    }


@pytest.fixture
def effects(run_folder: RunFolder) -> pd.DataFrame:
    return technique_effects(searched(run_folder, configs(150, favoured), results))


TRUE = {
    ("respawn", "perplexity"): 30.0,
    ("kmeans", "perplexity"): 60.0,
    ("entropy", "perplexity"): 0.0,
    ("respawn", "recon_loss"): 0.0,
    ("kmeans", "recon_loss"): 0.0,
    ("entropy", "recon_loss"): 0.1,
}


def test_effects_at_matched_others(effects: pd.DataFrame) -> None:
    assert tuple(effects.columns) == COLUMNS
    found = effects.set_index(["technique", "objective"])
    assert set(found.index) == set(TRUE)
    scale = {"perplexity": 12.0, "recon_loss": 0.012}
    for at, effect in TRUE.items():
        assert found.loc[at, "effect"] == pytest.approx(effect, abs=scale[at[1]])
        assert found.loc[at, "low"] < found.loc[at, "effect"] < found.loc[at, "high"]
        assert found.loc[at, "low"] - scale[at[1]] < effect < found.loc[at, "high"] + scale[at[1]]


def test_the_difference_of_means_is_wrong_here(effects: pd.DataFrame) -> None:
    found = effects.set_index(["technique", "objective"]).loc[("respawn", "perplexity")]
    assert found["mean_on"] - found["mean_off"] > 3 * TRUE["respawn", "perplexity"]
    assert found["on"] + found["off"] == 150


def test_what_is_known_exactly() -> None:
    """With nothing else that matters the effect is the difference of the means."""
    chance = np.random.default_rng(0)
    on = (chance.random(200) < 0.5).astype(float)
    others = chance.random((200, 3)).astype(np.float32)
    effect, low, high = matched_effect(on, 5 * on, others)
    assert effect == pytest.approx(5, abs=0.3)
    assert low <= effect <= high
    assert matched_effect(on, np.zeros(200), others) == (0, 0, 0)
    assert matched_effect(on, 5 * on, others) == (effect, low, high)


def test_the_interval_covers_as_often_as_it_says() -> None:
    held = 0
    for seed in range(20):
        chance = np.random.default_rng(seed)
        x = chance.random((80, 4)).astype(np.float32)
        on = (chance.random(80) < 0.2 + 0.6 * x[:, 0]).astype(float)
        _, low, high = matched_effect(on, on + 2 * x[:, 0] + chance.normal(0, 0.5, 80), x)
        held += low <= 1 <= high
    assert held >= 16


def test_what_cannot_be_told_is_said(run_folder: RunFolder) -> None:
    def change(config: Config, chance: np.random.Generator) -> None:
        lr = config["training"]["lr"] = float(chance.random())
        config["codebook"]["respawn"] = {"period": 100} if lr > 0.5 else None
        config["codebook"]["entropy"] = {"weight": 0.1} if chance.random() < 0.05 else None

    made = configs(60, change)
    table = technique_effects(
        searched(run_folder, made, lambda config: {"perplexity": config["training"]["lr"]})
    )
    notes = table.groupby("technique")["note"].first()
    assert table["effect"].isna().all()
    assert notes["respawn"] == "it never changes without other settings"
    assert "too few" in notes["entropy"]


def test_settings_that_always_come_with_it_are_named(run_folder: RunFolder) -> None:
    def change(config: Config, chance: np.random.Generator) -> None:
        if chance.random() < 0.5:
            config["codebook"] |= {"kmeans": {"latents": 100}, "size": 64}

    records = searched(
        run_folder, configs(40, change), lambda config: {"perplexity": config["codebook"]["size"]}
    )
    table = technique_effects(records)
    [row] = table[table["objective"] == "perplexity"].to_dict("records")
    assert row["note"] == "together with codebook.size"
    assert row["effect"] == pytest.approx(64 - 512)


def test_switches_compare_with_what_a_technique_replaces() -> None:
    kinds: list[dict[str, Any] | None] = [None, {"kind": "batch"}, {"kind": "layer"}]
    made = [
        {"codebook": {"update": {"kind": update}, "normalization": kind, "respawn": respawn}}
        for update in ("ema", "gradient", "fsq")
        for kind in kinds
        for respawn in (None, {"period": 100})
    ]
    found = {switch.technique: switch for switch in switches(factors(made))}
    assert list(found) == ["ema", "fsq", "normalization batch", "normalization layer", "respawn"]
    assert found["ema"].on.sum() == found["ema"].off.sum() == 6
    assert not (found["ema"].off & found["fsq"].on).any()
    assert found["respawn"].off.sum() == 9
    never_plain = [{"codebook": {"update": {"kind": kind}}} for kind in ("ema", "fsq", "ema")]
    ema, fsq = switches(factors(never_plain))
    assert (ema.technique, ema.on.tolist(), ema.off.tolist()) == (
        "ema",
        [True, False, True],
        [False, True, False],
    )
    assert (fsq.on == ema.off).all()


def test_a_technique_is_compared_where_it_could_be(run_folder: RunFolder) -> None:
    """Growth does nothing, but goes with one codebook only, and groups halve the perplexity."""

    def change(config: Config, chance: np.random.Generator) -> None:
        layout = chance.choice(["one", "growth", "groups"])
        config["codebook"]["groups"] = {"count": 2} if layout == "groups" else None
        config["codebook"]["growth"] = {"start": 64} if layout == "growth" else None
        config["training"]["lr"] = float(chance.random())

    made = configs(90, change)
    table = technique_effects(
        searched(
            run_folder, made, lambda c: {"perplexity": 100.0 if c["codebook"]["groups"] else 200.0}
        )
    ).set_index(["technique", "objective"])
    growth = table.loc[("growth", "perplexity")]
    assert growth["effect"] == pytest.approx(0)
    assert growth["on"] + growth["off"] == sum(c["codebook"]["groups"] is None for c in made)
    assert table.loc[("groups", "perplexity"), "effect"] == pytest.approx(-100, abs=5)
