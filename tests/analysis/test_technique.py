"""A trial's technique in words."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest

from analysis.flatten import flatten
from analysis.technique import PLAIN, technique_summary
from trainables.config import TrialConfig
from trainables.config_codebook import CodebookConfig

EMA = {"kind": "ema", "decay": 0.98, "accumulate": 1}
TECHNIQUES = [name for name, value in CodebookConfig() if value is None]
RESPAWN = {"buffer": 0, "jitter": 0.01, "period": 3200, "threshold": 0.1}


@pytest.mark.parametrize(
    ("codebook", "training", "words"),
    [
        ({}, {}, "plain"),
        ({"update": EMA}, {}, "ema decay=0.98"),
        ({"update": EMA | {"accumulate": 4}}, {}, "ema decay=0.98 accumulate=4"),
        (
            {"update": {"kind": "gradient", "weight": 1.0, "lr_ratio": 3.0}},
            {},
            "gradient lr_ratio=3",
        ),
        (
            {
                "update": EMA,
                "commitment": {"beta": 2.0},
                "respawn": RESPAWN,
                "kmeans": {"latents": 16384, "iterations": 10},
            },
            {},
            "ema decay=0.98, β=2, respawn 3200/0.1, kmeans",
        ),
        ({"growth": {"start": 64, "at": 0.3, "jitter": 0.01}}, {}, "growth 64/0.3"),
        ({"entropy": {"weight": 0.0123456, "temperature": 0.1}}, {}, "entropy 0.01235"),
        (
            {"size": 1024, "dim": 8},
            {"batch_size": 64, "lr": 3e-4},
            "K=1024, d=8, batch=64, lr=0.0003",
        ),
        ({"rotation": {}, "cosine": {}}, {}, "rotation, cosine"),
        ({"sample_entropy": {"weight": 0.03, "temperature": 0.1}}, {}, "sample_entropy 0.03"),
        ({"least_recent": {"patience": 8000, "jitter": 0.01}}, {}, "least_recent 8000"),
        ({"reanchor": {"decay": 0.99}}, {}, "reanchor 0.99"),
        ({"stochastic": {"temperature": 0.5, "until": 0.4}}, {}, "stochastic 0.5/0.4"),
        ({"low_dim": {"dim": 8}}, {}, "low_dim 8"),
        ({"dim_growth": {"start": 8, "at": 0.3}}, {}, "dim_growth 8/0.3"),
        ({"normalization": {"kind": "batch", "momentum": 0.1}}, {}, "normalization batch"),
        ({"normalization": {"kind": "layer"}}, {}, "normalization layer"),
        ({"groups": {"count": 2}}, {}, "groups 2"),
        ({"residual": {"levels": 3, "dropout": 0.0}}, {}, "residual 3"),
        ({"residual": {"levels": 3, "dropout": 0.25}, "size": 8}, {}, "K=8, residual 3/0.25"),
        (
            {"update": {"kind": "fsq", "levels": [8, 8, 8]}, "commitment": {"beta": 0.0}},
            {},
            "fsq 8x8x8, β=0",
        ),
        ({"update": {"kind": "lfq"}}, {}, "lfq"),
        (
            {"update": {"kind": "simvq", "weight": 1.0, "lr_ratio": 1.0, "lr_final": 1.0}},
            {},
            "simvq",
        ),
        (
            {"update": {"kind": "simvq", "weight": 1.0, "lr_ratio": 0.5, "lr_final": 0.1}},
            {},
            "simvq lr_ratio=0.5 lr_final=0.1",
        ),
        ({}, {"warmup": 0.05, "lr_final": 0.01}, "warmup=0.05, lr_final=0.01"),
        # Not known here: all of its parameters.
        ({"whitening": {"kind": "fast", "angle": 0.5}}, {}, "whitening kind=fast angle=0.5"),
    ],
)
def test_words(
    config: dict[str, Any], codebook: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    config["codebook"] |= codebook
    config["training"] |= training
    assert technique_summary(config) == words


def test_words_are_against_the_given_baseline(config: dict[str, Any]) -> None:
    config["codebook"] |= {"dim": 8, "respawn": RESPAWN}
    assert technique_summary(config, config) == "plain"
    other = deepcopy(config)
    other["seed"] = 7
    other["model"] |= {"width": 64, "strides": [4]}
    other["codebook"]["respawn"] = None
    assert technique_summary(other, config) == "width=64, strides=4, no respawn"


def test_a_model_of_another_kind_is_told_by_its_kind() -> None:
    plain = TrialConfig().to_dict()
    for strides, words in (([2], "hierarchical"), ([2, 2], "hierarchical 2x2")):
        model = {"kind": "hierarchical", "top_strides": strides}
        config = TrialConfig.from_dict({"model": model, "codebook": {"size": 64}}).to_dict()
        assert technique_summary(config, plain) == f"{words}, K=64"
        assert technique_summary(config) == f"{words}, K=64"
        assert technique_summary(config, config) == "plain"
    own = {"kind": "factory", "factory": "made:build"}
    config = TrialConfig.from_dict({"model": own}).to_dict()
    assert technique_summary(config, plain) == "factory"
    other = TrialConfig.from_dict(
        {"model": {"kind": "hierarchical", "top_strides": [4], "strides": [2]}}
    ).to_dict()
    hierarchy = TrialConfig.from_dict({"model": {"kind": "hierarchical"}}).to_dict()
    assert technique_summary(other, hierarchy) == "strides=2, top_strides=4"
    assert technique_summary(hierarchy, other) == "strides=none, top_strides=2"


def test_fields_that_an_older_record_lacks_are_no_difference() -> None:
    new = TrialConfig().to_dict()
    old = deepcopy(new)
    del (
        old["codebook"]["update"]["lr_final"],
        old["training"]["lr_final"],
        old["training"]["warmup"],
    )
    for name in ("groups", "residual", "normalization"):
        del old["codebook"][name]
    assert technique_summary(old) == technique_summary(old, new) == "plain"
    assert technique_summary(new, old) == "plain"


def test_every_technique_is_told_in_a_few_words() -> None:
    for name in TECHNIQUES:
        block = TrialConfig.from_dict({"codebook": {name: {}, "dim": 64}}).to_dict()
        assert re.fullmatch(rf"{name}( [\w./]+)?", technique_summary(block)), name


def test_plain_is_the_default_trial() -> None:
    default = flatten(TrialConfig().to_dict(), ".")
    plain = flatten(PLAIN, ".")
    assert plain == {path: default[path] for path in plain}
    assert technique_summary(TrialConfig().to_dict()) == "plain"


@pytest.mark.parametrize("model", [None, "conv", [], {}])
def test_a_model_that_is_no_model_is_not_told(model: Any, config: dict[str, Any]) -> None:
    """A run's folder may hold anything; a table of it is still made."""
    assert technique_summary({**config, "model": model}, config) == "plain"
