"""Learning rates over the training, lane by lane."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainables.conftest import make_config, make_dataset
from trainables.schedule import cosine_fall, warm_rise
from trainables.stack import Stack

CPU = torch.device("cpu")


def test_the_fall_is_a_cosine_from_1_to_the_final_factor() -> None:
    done = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0], dtype=torch.float64)
    found = cosine_fall(done, torch.full_like(done, 0.2))
    middle = 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2
    assert found.tolist() == pytest.approx([1, middle, 0.6, 0.2, 0.2])


def test_the_rise_is_linear_and_there_is_none_without_warmup() -> None:
    done = torch.tensor([0.001, 0.05, 0.1, 0.5], dtype=torch.float64)
    found = warm_rise(done, torch.full_like(done, 0.1))
    assert found.tolist() == pytest.approx([0.01, 0.5, 1, 1])
    assert warm_rise(done, torch.zeros_like(done)).tolist() == [1, 1, 1, 1]


def rates_of(steps: int, codebook: dict[str, object], **training: object) -> list[float]:
    """What the first step of Adam moved a weight by, at its start and after so many steps."""
    config = make_config(codebook, samples=400, lr=1e-2, precision="float64", **training)
    stack = Stack([config], make_dataset(), CPU)
    moved = []
    for at in (0, steps):
        stack.advance(at - stack.steps[0])
        for adam in (stack.adam, stack.codebook_adam):
            assert adam is not None
            adam.mean.zero_()
            adam.square.zero_()
            adam.steps.zero_()
        before = stack.adam.flat.clone(), stack.codebook_adam.flat.clone()
        stack.step(stack.feed.batch(stack.feed.places([[0, 8, 16, 24]])))
        after = stack.adam.flat, stack.codebook_adam.flat
        moved.append([(b - a).abs().max().item() for a, b in zip(before, after, strict=True)])
    return [end / start for start, end in zip(*moved, strict=True)]


def test_both_rates_fall_and_the_codebooks_further() -> None:
    """Adam's first step is as long as the learning rate."""
    update = {"update": {"kind": "gradient", "lr_ratio": 2.0, "lr_final": 0.25}}
    both = rates_of(99, update, lr_final=0.1)
    assert both == pytest.approx([0.1, 0.1 * 0.25], rel=0.02)
    assert rates_of(99, update) == pytest.approx([1, 0.25], rel=0.02)
    assert rates_of(99, {}) == pytest.approx([1, 1], rel=1e-4)


def test_warmup_begins_low() -> None:
    assert rates_of(50, {}, warmup=0.5) == pytest.approx([50, 50], rel=0.02)
