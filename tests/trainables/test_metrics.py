"""The metrics against closed forms, and against what they are meant to correct."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.metrics import (
    codebook_metrics,
    entropy_miller_madow,
    entropy_plugin,
    stream_metrics,
)

histograms = st.lists(st.integers(0, 1000), min_size=1, max_size=60).map(np.array)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 512])
@pytest.mark.parametrize("each", [1, 3, 50])
def test_even_use_has_the_perplexity_of_its_closed_form(size: int, each: int) -> None:
    total = size * each
    metrics = stream_metrics(np.full(size, float(each)), size)
    expected = math.exp(math.log(size) + (size - 1) / (2 * total))
    assert metrics["perplexity"] == pytest.approx(expected, rel=1e-12)
    assert metrics["perplexity_plugin"] == pytest.approx(size, rel=1e-12)
    assert metrics["usage"] == pytest.approx(expected / size, rel=1e-12)
    assert metrics["active_codes"] == metrics["hit_codes"] == size


def test_one_code_for_everything_has_perplexity_one() -> None:
    counts = np.zeros(512)
    counts[17] = 25_600
    metrics = stream_metrics(counts, 512)
    assert metrics["perplexity"] == metrics["perplexity_plugin"] == 1
    assert metrics["active_codes"] == metrics["hit_codes"] == 1
    assert metrics["usage"] == 1 / 512


def test_no_counts_at_all_are_no_error() -> None:
    metrics = stream_metrics(np.zeros(8), 8)
    assert metrics["perplexity"] == 1
    assert metrics["active_codes"] == metrics["hit_codes"] == 0


def test_a_distribution_worked_out_by_hand() -> None:
    # p = 1/2, 1/4, 1/4: entropy 1.5 bits, three codes hit, 16 latents.
    metrics = codebook_metrics([np.array([8.0, 4, 4, 0])], [4], [2.0])
    bits = 1.5 + 2 / 32 / math.log(2)
    assert metrics["perplexity_plugin"] == pytest.approx(2**1.5)
    assert metrics["perplexity"] == pytest.approx(2**bits)
    assert metrics["bits_per_frame"] == pytest.approx(2 * bits)
    assert metrics["bits_per_frame_nominal"] == 2 * 2


@pytest.mark.parametrize("size", [3, 10, 16, 512, 1000])
@pytest.mark.parametrize("count", [1, 2, 7, 333])
def test_active_begins_exactly_at_a_tenth_of_the_mean_use(size: int, count: int) -> None:
    # A code with `count` of `10 * size * count` latents has p = 0.1 / K to the last bit.
    at, above, below = (np.zeros(size) for _ in range(3))
    total = 10 * size * count
    for counts, more in ((at, 0), (above, 1), (below, -1)):
        counts[0] = count + more
        counts[1] = total - count - more
    assert stream_metrics(at, size)["active_codes"] == 2
    assert stream_metrics(above, size)["active_codes"] == 2
    assert stream_metrics(below, size)["active_codes"] == 1
    hit = 2 if count > 1 else 1
    assert stream_metrics(below, size)["hit_codes"] == hit


def test_one_hit_makes_a_code_hit_but_not_active() -> None:
    counts = np.ones(512)
    counts[0] = 25_600
    metrics = stream_metrics(counts, 512)
    assert metrics["hit_codes"] == 512
    assert metrics["active_codes"] == 1


def test_usage_and_active_refer_to_the_codes_in_use() -> None:
    counts = np.zeros(512)
    counts[:64] = 100
    grown, growing = stream_metrics(counts, 512), stream_metrics(counts, 64)
    assert growing["perplexity"] == grown["perplexity"]
    assert growing["usage"] == pytest.approx(8 * grown["usage"])
    assert (growing["codes_in_use"], grown["codes_in_use"]) == (64, 512)
    rare = np.array([1000.0, 5])  # p = 0.005: a tenth of the mean use among 20 codes, not 10
    assert [stream_metrics(rare, k)["active_codes"] for k in (10, 21)] == [1, 2]


@given(counts=histograms)
def test_entropies_lie_where_they_must(counts: np.ndarray) -> None:
    plugin, corrected = entropy_plugin(counts), entropy_miller_madow(counts)
    hit = max(1, int((counts > 0).sum()))
    assert -1e-12 <= plugin <= math.log(hit) + 1e-12
    assert corrected == pytest.approx(plugin + (hit - 1) / (2 * max(1, counts.sum())))


@given(counts=histograms, seed=st.integers(0, 100))
def test_neither_order_nor_unused_codes_change_the_entropy(counts: np.ndarray, seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(np.concatenate([counts, np.zeros(5)]))
    assert entropy_miller_madow(mixed) == pytest.approx(entropy_miller_madow(counts), abs=1e-12)


@pytest.mark.parametrize("latents_per_code", [1, 5, 20, 50])
def test_miller_madow_is_less_biased_than_the_plug_in(latents_per_code: int) -> None:
    size = 256
    rng = np.random.default_rng(0)
    for p in (np.full(size, 1 / size), rng.dirichlet(np.full(size, 2.0))):
        truth = -(p * np.log(p)).sum()
        draws = rng.multinomial(latents_per_code * size, p, size=200)
        plugin = np.mean([entropy_plugin(draw) for draw in draws]) - truth
        corrected = np.mean([entropy_miller_madow(draw) for draw in draws]) - truth
        assert plugin < 0  # the plug-in reads too low
        assert abs(corrected) < 0.6 * abs(plugin)
    if latents_per_code == 50:
        assert abs(corrected) < 1e-3


def test_counts_pooled_over_a_set_are_not_the_average_of_its_batches() -> None:
    # Two batches with codes of their own: each has perplexity 4, together they have 8.
    first, second = np.zeros(8), np.zeros(8)
    first[:4], second[4:] = 1000, 1000
    average = np.mean([stream_metrics(c, 8)["perplexity_plugin"] for c in (first, second)])
    pooled = stream_metrics(first + second, 8)["perplexity_plugin"]
    assert average == pytest.approx(4)
    assert pooled == pytest.approx(8)


def test_several_streams_report_mean_minimum_and_each() -> None:
    streams = [np.array([50.0, 50, 50, 50]), np.array([200.0, 0]), np.array([100.0, 100])]
    in_use = [4, 2, 2]
    metrics = codebook_metrics(streams, in_use, [1.0, 0.5, 0.25])
    alone = [stream_metrics(c, k) for c, k in zip(streams, in_use, strict=True)]
    for name in ("perplexity", "perplexity_plugin", "active_codes", "hit_codes", "usage"):
        values = [one[name] for one in alone]
        assert metrics[name] == pytest.approx(sum(values) / 3)
        assert metrics[f"{name}_min"] == min(values)
        assert [metrics[f"stream_{i}/{name}"] for i in range(3)] == values
    assert metrics["perplexity_min"] == 1
    assert metrics["codes_in_use"] == pytest.approx(8 / 3)
    bits = [math.log2(4) + 3 / 400 / math.log(2), 0.0, 1 + 1 / 400 / math.log(2)]
    assert metrics["bits_per_frame"] == pytest.approx(bits[0] + 0.25 * bits[2])
    assert metrics["bits_per_frame_nominal"] == 2 + 0.5 * 1 + 0.25 * 1


def test_a_single_stream_has_the_plain_names_only() -> None:
    counts = np.array([3.0, 1])
    metrics = codebook_metrics([counts], [2], [1.0])
    extra = {"bits_per_frame", "bits_per_frame_nominal"}
    assert metrics.keys() == stream_metrics(counts, 2).keys() | extra
    assert all(isinstance(value, (int, float)) for value in metrics.values())
