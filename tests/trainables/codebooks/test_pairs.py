"""Any two techniques either train together without a NaN or are refused with the reason."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.codebooks.books import CPU
from tests.trainables.conftest import make_config, make_dataset
from trainables.config import TrialConfig
from trainables.config_codebook import CodebookConfig
from trainables.errors import InputError
from trainables.stack import Stack

# Every technique at a setting that acts within 50 steps; of 16 codes in 4 dimensions.
TECHNIQUES: dict[str, dict[str, Any]] = {
    "gradient": {"update": {"kind": "gradient", "lr_ratio": 5.0, "lr_final": 0.1}},
    "ema": {"update": {"kind": "ema", "decay": 0.8}},
    "accumulate": {"update": {"kind": "ema", "decay": 0.8, "accumulate": 3}},
    "simvq": {"update": {"kind": "simvq"}},
    "fsq": {"update": {"kind": "fsq", "levels": [4, 4]}},
    "lfq": {"update": {"kind": "lfq"}},
    "commitment": {"commitment": {"beta": 4.0}},
    "entropy": {"entropy": {"weight": 0.5, "temperature": 0.1}},
    "sample_entropy": {"sample_entropy": {"weight": 0.5, "temperature": 0.1}},
    "rotation": {"rotation": {}},
    "stochastic": {"stochastic": {"temperature": 2.0, "until": 0.6}},
    "cosine": {"cosine": {}},
    "low_dim": {"low_dim": {"dim": 2}},
    "dim_growth": {"dim_growth": {"start": 2, "at": 0.3}},
    "batch_norm": {"normalization": {"kind": "batch"}},
    "layer_norm": {"normalization": {"kind": "layer"}},
    "groups": {"groups": {"count": 2}},
    "residual": {"residual": {"levels": 3, "dropout": 0.5}},
    "respawn": {"respawn": {"period": 12, "threshold": 0.5}},
    "buffer": {"respawn": {"period": 12, "buffer": 100}},
    "least_recent": {"least_recent": {"patience": 12}},
    "reanchor": {"reanchor": {"decay": 0.5}},
    "kmeans": {"kmeans": {"latents": 100}},
    "growth": {"growth": {"start": 4, "at": 0.4}},
}


def trained(blocks: dict[str, Any], seed: int = 0, steps: int = 50) -> Stack:
    values = make_config(blocks, samples=4 * steps, lr=3e-3).to_dict()
    stack = Stack([TrialConfig.from_dict({**values, "seed": seed})], make_dataset(), CPU)
    stack.advance(steps)
    return stack


def pairs() -> list[tuple[str, str]]:
    """Those that are not two settings of one block."""
    names = itertools.combinations(TECHNIQUES, 2)
    return [(a, b) for a, b in names if not TECHNIQUES[a].keys() & TECHNIQUES[b].keys()]


def test_every_block_is_among_the_techniques() -> None:
    blocks = {name for blocks in TECHNIQUES.values() for name in blocks}
    assert blocks == set(CodebookConfig.model_fields) - {"size", "dim"}
    kinds = {blocks["update"]["kind"] for blocks in TECHNIQUES.values() if "update" in blocks}
    assert kinds == {"gradient", "ema", "simvq", "fsq", "lfq"}


@pytest.mark.parametrize("first", TECHNIQUES)
def test_any_pair_trains_or_is_refused_with_the_reason(first: str) -> None:
    refused = 0
    for one, other in pairs():
        if one != first:
            continue
        try:
            stack = trained({**TECHNIQUES[one], **TECHNIQUES[other]})
        except InputError as error:
            line = str(error)
            refused += 1
            assert line.startswith("config: codebook."), line
            assert "found with " in line, line
            assert "allowed without it: " in line, line
            assert "\n" not in line
            continue
        assert stack.finite.all(), (one, other)
        for name, value in stack.lane_state(0).items():
            if value.is_floating_point():
                assert value.isfinite().all(), (one, other, name)
    assert refused < 12


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.sampled_from(list(TECHNIQUES)), min_size=3, max_size=8),
    seed=st.integers(0, 1000),
)
def test_any_mix_that_is_allowed_trains(names: list[str], seed: int) -> None:
    mix: dict[str, Any] = {}
    for name in names:
        try:
            make_config({**mix, **TECHNIQUES[name]})
        except InputError:
            continue  # not with those before it
        mix |= TECHNIQUES[name]
    stack = trained(mix, seed, steps=20)
    assert stack.finite.all()
    assert torch.isfinite(
        stack.encode(torch.randn(1, 2, 6, 8), lambda q, z: q.unquantized(z))[0]
    ).all()
