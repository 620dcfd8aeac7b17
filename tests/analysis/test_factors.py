"""The factors in which trials differ: techniques, values in branches, and what is left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from analysis.factors import Factor, factors, searched_values
from vqtune.spaces import load_space


def by_name(*configs: dict[str, Any], **more: Any) -> dict[str, Factor]:
    return {factor.name: factor for factor in factors(configs, **more)}


def test_a_technique_is_a_factor_and_so_is_each_value_in_it() -> None:
    found = by_name(
        {"respawn": None, "update": {"kind": "ema", "decay": 0.9}},
        {"respawn": {"period": 800}, "update": {"kind": "ema", "decay": 0.99}},
        {"respawn": {"period": 1600}, "update": {"kind": "gradient", "lr_ratio": 1.0}},
        {"respawn": {"period": 3200}, "update": {"kind": "ema", "decay": 0.95}},
    )
    assert {name: factor.branch for name, factor in found.items()} == {
        "respawn": "",
        "respawn.period": "respawn on",
        "update": "",
        "update.decay": "update ema",
    }
    assert found["respawn"].levels == ("off", "on")
    assert found["update"].levels == ("ema", "gradient")
    assert found["respawn.period"].parent == "respawn"
    np.testing.assert_array_equal(found["respawn"].codes, [0, 1, 1, 1])
    np.testing.assert_array_equal(found["respawn.period"].codes, [math.nan, 800, 1600, 3200])
    np.testing.assert_array_equal(found["update.decay"].active, [True, True, False, True])


def test_kinds_of_a_technique_that_can_be_off() -> None:
    kinds: list[dict[str, Any] | None] = [None, {"kind": "layer"}, {"kind": "batch"}]
    [factor] = factors([{"normalization": kind} for kind in kinds])
    assert factor.levels == ("off", "batch", "layer")
    np.testing.assert_array_equal(factor.codes, [0, 2, 1])


def test_constants_seeds_and_provenance_are_no_factors() -> None:
    configs = [
        {"seed": i, "provenance": {"of": str(i)}, "model": {"kind": "conv", "strides": [2, 2]}}
        for i in range(5)
    ]
    assert factors(configs) == []
    assert factors([]) == []


def test_what_an_older_record_lacks_is_off() -> None:
    found = by_name({"codebook": {}}, {"codebook": {"groups": None}}, {"codebook": {"groups": {}}})
    np.testing.assert_array_equal(found["codebook.groups"].codes, [0, 0, 1])


def test_choices_that_split_the_trials_alike_count_once_under_the_technique() -> None:
    found = by_name(
        *({"batch": b, "lr": b / 100, "kmeans": {} if b == 8 else None} for b in (8, 16, 8, 16))
    )
    assert list(found) == ["kmeans"]
    assert found["kmeans"].same == ("batch", "lr")


def test_numbers_that_differ_in_every_trial_are_not_the_same() -> None:
    found = by_name(*({"a": a, "b": b} for a, b in zip(range(6), (3, 1, 5, 0, 4, 2), strict=True)))
    assert list(found) == ["a", "b"]
    reversed_ = by_name(*({"a": a, "b": -(a**3)} for a in range(6)))
    assert list(reversed_) == ["a"]


SPACE = yaml.safe_load("""
parameters:
  training:
    lr: {distribution: log_uniform_values, min: 0.1, max: 0.2}
    warmup: {values: [0.0, 0.05]}
    batch_size: {values: [8, 32, 128]}
  codebook:
    choices:
      one:
        size: 512
        decay: {min: 0.9, max: 0.99}
      three:
        size: 8
        groups: {count: 3}
        dim: {values: [4, 64]}
""")


def test_searched_values_come_from_the_space_with_their_scales() -> None:
    assert searched_values({"space": SPACE}) == {
        "training.lr": True,
        "training.warmup": False,
        "training.batch_size": True,
        "codebook.decay": False,
        "codebook.dim": True,
    }
    for spec in ({}, {"space": None}, {"space": {"parameters": 3}}):
        assert searched_values(spec) is None


def test_a_size_that_follows_from_the_technique_is_no_factor_of_its_own() -> None:
    grouped = [{"codebook": {"size": 8, "groups": {"count": 3}}}] * 3
    layered = [{"codebook": {"size": 8, "groups": None, "residual": {}}}] * 3
    plain = [{"codebook": {"size": 512, "groups": None}}] * 4
    found = by_name(*grouped, *layered, *plain, searched={})
    assert list(found) == ["codebook.groups", "codebook.residual"]
    assert all(factor.same == ("codebook.size",) for factor in found.values())
    also = by_name(*grouped, *layered, *plain, searched={"codebook.size": True})
    assert "codebook.size" in also


def test_scales() -> None:
    betas = [0.0, 0.2, 2.0, 20.0]
    [factor] = factors([{"beta": beta} for beta in betas], {"beta": True})
    assert factor.log
    np.testing.assert_allclose(factor.places, np.log10([1, 2, 20, 200]) / np.log10(200))
    [linear] = factors([{"beta": beta} for beta in betas], {"beta": False})
    np.testing.assert_allclose(linear.places, [0, 0.01, 0.1, 1])
    [zero] = factors([{"beta": beta} for beta in (-1, 0, -2)], {"beta": True})
    assert not zero.log


@pytest.mark.parametrize("trials", [40, 150])
def test_the_full_space_in_its_own_terms(trials: int) -> None:
    space = load_space("full")
    drawn = [config.to_dict() for config in space.draw(trials)]
    searched = searched_values({"space": {"parameters": space.parameters}})
    assert searched is not None
    found = factors(drawn, searched)
    values = {factor.name for factor in found if not factor.block}
    assert values <= searched.keys()
    assert len(values) > 0.7 * len(searched)
    blocks = {factor.name: factor for factor in found if factor.block}
    assert {"codebook.update", "codebook.respawn", "codebook.groups"} <= blocks.keys()
    assert "codebook.size" in blocks["codebook.groups"].same
    assert {f.name for f in found if f.branch == "codebook.respawn on"} == {
        f"codebook.respawn.{name}" for name in ("period", "threshold", "buffer")
    }


LEAVES = st.sampled_from([None, 1, 2.5, True, "a", [1, 2], float("inf"), -3])
TREES = st.recursive(
    LEAVES,
    lambda deeper: st.dictionaries(st.sampled_from(["a", "b", "kind"]), deeper),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), TREES), max_size=8))
def test_any_configs_have_factors(configs: list[dict[str, Any]]) -> None:
    found = factors(configs, {})
    splits = set()
    for factor in found:
        assert factor.codes.shape == (len(configs),)
        assert len(np.unique(factor.codes[factor.active])) >= 2
        places = factor.places[factor.active]
        assert ((places >= 0) & (places <= max(1, len(factor.levels) - 1))).all()
        splits.add(tuple(np.nan_to_num(factor.codes, nan=-99.0)))
    assert len(splits) == len(found)
