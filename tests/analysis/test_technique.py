"""A trial's technique in words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from analysis.flatten import flatten
from analysis.technique import PLAIN, technique_summary
from trainables.config import TrialConfig

EMA = {"kind": "ema", "decay": 0.98, "accumulate": 1}
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
        ({"rotation": {"kind": "fast", "angle": 0.5}}, {}, "rotation kind=fast angle=0.5"),
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
    assert technique_summary(other, config) == "width=64, strides=(4,), no respawn"


def test_plain_is_the_default_trial() -> None:
    default = flatten(TrialConfig().to_dict(), ".")
    plain = flatten(PLAIN, ".")
    assert plain == {path: default[path] for path in plain}
    assert technique_summary(TrialConfig().to_dict()) == "plain"
