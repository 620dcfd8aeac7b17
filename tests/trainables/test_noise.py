"""Counter-based noise is uniform, normal, and a lane's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainables import noise

COUNT = 100_000
seeds = st.integers(0, 2**31 - 1)
words = st.integers(-(2**63), 2**63 - 1)


def keys(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def splitmix_finaliser(x: int) -> int:
    """The finaliser as its paper writes it, in unsigned 64-bit arithmetic."""
    mask = 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def unmixed(x: int) -> int:
    """The inverse of the finaliser: each xor-shift undone, each factor inverted modulo 2^64."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        undone, times = x, 64 // shift
        for _ in range(times):
            undone = x ^ (undone >> shift)
        x = undone * pow(factor, -1, 2**64) % 2**64
    return x


@given(values=st.lists(words, min_size=1, max_size=20))
def test_mix_is_the_splitmix64_finaliser(values: list[int]) -> None:
    mixed = noise.mix(keys(*values)).tolist()
    assert [m % 2**64 for m in mixed] == [splitmix_finaliser(v % 2**64) for v in values]


@given(value=words)
def test_mix_can_be_undone_so_no_two_values_meet(value: int) -> None:
    [mixed] = noise.mix(keys(value)).tolist()
    assert unmixed(mixed % 2**64) == value % 2**64


def test_mix_keeps_neighbouring_counters_apart() -> None:
    mixed = noise.mix(torch.arange(-COUNT, COUNT))
    assert len(mixed.unique()) == 2 * COUNT
    # Half of all 64 bits flip from one counter to the next.
    flipped = mixed[1:] ^ mixed[:-1]
    ones = sum(((flipped >> bit) & 1).double().mean().item() for bit in range(64))
    assert ones == pytest.approx(32, abs=0.1)


@pytest.mark.parametrize("seed", [0, 1, 12_345, 2**31 - 1])
def test_uniform_numbers_are_uniform(seed: int) -> None:
    drawn = noise.uniform(keys(seed), (COUNT,))[0]
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # Standard errors of mean and variance of COUNT uniform numbers, four of them.
    assert drawn.double().mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / COUNT))
    assert drawn.double().var().item() == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / COUNT))
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3
    cells = np.bincount((drawn * 256).long().numpy(), minlength=256)
    assert stats.chisquare(cells).pvalue > 1e-3
    # Pairs of successive numbers fill the square.
    pairs = (drawn.view(-1, 2) * 16).long()
    square = np.bincount((pairs[:, 0] * 16 + pairs[:, 1]).numpy(), minlength=256)
    assert stats.chisquare(square).pvalue > 1e-3


def test_uniform_numbers_use_all_bits_of_a_float32_in_0_1() -> None:
    drawn = (noise.uniform(keys(3), (COUNT,)).double() * 2**24).long()[0]
    assert torch.equal(drawn.double() / 2**24, noise.uniform(keys(3), (COUNT,))[0].double())
    for bit in range(24):
        assert ((drawn >> bit) & 1).double().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_normal_numbers_are_normal(seed: int) -> None:
    drawn = noise.normal(keys(seed), (COUNT,))[0].double()
    assert drawn.isfinite().all()
    assert drawn.mean().item() == pytest.approx(0, abs=4 / math.sqrt(COUNT))
    assert drawn.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / COUNT))
    assert drawn.pow(3).mean().item() == pytest.approx(0, abs=4 * math.sqrt(15 / COUNT))
    assert drawn.pow(4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / COUNT))
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3
    assert 4 < drawn.abs().max() < 6  # of 10^5 draws, a few in a million beyond 4.5


@settings(deadline=None)
@given(lanes=st.lists(seeds, min_size=1, max_size=5), shape=st.lists(st.integers(1, 5), max_size=3))
def test_a_lane_draws_the_same_alone_and_among_others(lanes: list[int], shape: list[int]) -> None:
    together = keys(*lanes)
    for draw in (noise.uniform, noise.normal):
        drawn = draw(together, shape)
        assert drawn.shape == (len(lanes), *shape)
        for lane, seed in enumerate(lanes):
            assert torch.equal(drawn[lane], draw(keys(seed), shape)[0])
    assert torch.equal(noise.fold(together, 5)[0], noise.fold(keys(lanes[0]), 5)[0])


def test_the_first_numbers_do_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(noise.uniform(keys(4), (100,))[:, :10], noise.uniform(keys(4), (10,)))
    assert torch.equal(noise.normal(keys(4), (6, 5)).view(1, 30), noise.normal(keys(4), (30,)))


@settings(deadline=None)
@given(pair=st.lists(seeds, min_size=2, max_size=2, unique=True), data=st.integers(0, 10**9))
def test_other_keys_and_other_data_give_other_numbers(pair: list[int], data: int) -> None:
    first, second = noise.uniform(keys(*pair), (16,))
    assert not torch.equal(first, second)
    assert noise.fold(keys(pair[0]), data) != noise.fold(keys(pair[0]), data + 1)
    assert noise.fold(keys(pair[0]), data) != noise.fold(keys(pair[1]), data)


def test_streams_of_neighbouring_seeds_and_steps_are_uncorrelated() -> None:
    lanes = noise.uniform(torch.arange(20), (10_000,))
    steps = noise.uniform(noise.fold(keys(0), torch.arange(20)), (10_000,))
    correlations = torch.corrcoef(torch.cat([lanes, steps]).double())
    apart = correlations - torch.eye(40, dtype=torch.float64)
    assert apart.abs().max() < 5 / math.sqrt(10_000)
