"""The order of examples is a pure function of seed and count; batches are what slicing gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data import Split
from trainables.feed import Feed, Order

CPU = torch.device("cpu")


def make_split(count: int, slack: int, gap: int = 10) -> Split:
    """Clips `gap` frames apart; a shift of up to `slack` < gap names its clip."""
    starts = np.arange(count, dtype=np.int64) * gap
    values = np.arange(count * gap + slack, dtype=np.float32).reshape(-1, 1)
    return Split(values, starts, np.arange(count, dtype=np.int64) % (slack + 1))


@settings(deadline=None)
@given(
    count=st.integers(1, 80),
    slack=st.integers(0, 9),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 5),
)
def test_each_epoch_is_a_permutation_shifted_within_the_slack(
    count: int, slack: int, seed: int, epoch: int
) -> None:
    split = make_split(count, slack)
    drawn = Order(split, seed).first_frames(epoch * count, count)
    clip, shift = drawn // 10, drawn % 10
    assert sorted(clip) == list(range(count))
    assert (shift >= 0).all()
    assert (shift <= split.slack[clip]).all()


@settings(deadline=None)
@given(
    count=st.integers(1, 50),
    seed=st.integers(0, 2**31 - 1),
    chunks=st.lists(st.integers(1, 130), min_size=1, max_size=6),
)
def test_chunks_of_any_size_give_the_same_sequence(
    count: int, seed: int, chunks: list[int]
) -> None:
    split, total = make_split(count, 7), sum(chunks)
    whole = Order(split, seed).first_frames(0, total)
    order, drawn, parts = Order(split, seed), 0, []
    for chunk in chunks:
        parts.append(order.first_frames(drawn, chunk))
        drawn += chunk
    assert whole.dtype == np.int64
    assert np.concatenate(parts).tolist() == whole.tolist()
    # Going back, as a resume does, changes nothing either.
    assert order.first_frames(0, chunks[0]).tolist() == parts[0].tolist()
    middle = total // 2
    fresh = Order(split, seed).first_frames(middle, total - middle)
    assert fresh.tolist() == whole[middle:].tolist()


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    split = make_split(200, 7)
    orders = {
        tuple(Order(split, seed).first_frames(epoch * 200, 200) // 10)
        for seed in (0, 1, 2**31 - 1, (2**31) << 32)
        for epoch in range(3)
    }
    assert len(orders) == 12


def test_every_shift_that_the_slack_allows_comes_and_no_other() -> None:
    split = make_split(30, 3)
    order = Order(split, 5)
    drawn = np.concatenate([order.first_frames(30 * epoch, 30) for epoch in range(200)])
    for clip, slack in enumerate(split.slack):
        shifts = (drawn - split.starts[clip])[drawn // 10 == clip]
        counts = np.bincount(shifts, minlength=slack + 1)
        assert len(counts) == slack + 1
        # 200 draws over 1 to 4 shifts: each count within five standard deviations of its mean.
        mean = 200 / (slack + 1)
        assert (abs(counts - mean) <= 5 * np.sqrt(mean)).all()


def test_the_first_clips_of_an_epoch_are_even_draws() -> None:
    split = make_split(20, 0)
    first = [Order(split, seed).first_frames(0, 1)[0] // 10 for seed in range(2000)]
    counts = np.bincount(first, minlength=20)
    assert (abs(counts - 100) <= 5 * np.sqrt(100)).all()


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 4),
    frames=st.integers(1, 6),
    leading=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_batches_of_clips_are_slices_of_the_values(
    channels: int, frames: int, leading: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((40, channels)).astype(np.float32)
    split = Split(values, np.zeros(1, np.int64), np.zeros(1, np.int64))
    feed = Feed(split, frames, CPU, torch.float32)
    first = rng.integers(0, 40 - frames + 1, size=leading)
    batch = feed.batch(feed.places(first))
    assert batch.shape == (*leading, channels, frames)
    assert batch.is_contiguous()
    for index in np.ndindex(*leading):
        expected = values[first[index] : first[index] + frames].T
        assert np.array_equal(batch[index].numpy(), expected)


@pytest.mark.parametrize("shape", [(3, 5), (1, 8, 8), (3, 4, 6)])
def test_batches_of_whole_items_are_the_items(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((11, *shape)).astype(np.float32)
    split = Split(values, np.arange(11), np.zeros(11, np.int64))
    feed = Feed(split, None, CPU, torch.float32)
    first = [[3, 0, 3], [10, 7, 1]]
    batch = feed.batch(feed.places(first))
    assert batch.shape == (2, 3, *shape)
    assert np.array_equal(batch.numpy(), values[first])


def test_values_come_in_the_asked_type_and_read_only_data_is_left_alone() -> None:
    split = make_split(5, 0)
    split.values.flags.writeable = False
    feed = Feed(split, 2, CPU, torch.float64)
    batch = feed.batch(feed.places([0, 10]))
    assert batch.dtype == torch.float64
    batch.zero_()
    assert split.values[1, 0] == 1
    assert feed.batch(feed.places([1])).flatten().tolist() == [1, 2]
