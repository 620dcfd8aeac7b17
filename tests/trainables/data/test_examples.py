"""Which held-out examples are shown: those that show something, the same for every trial."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainables.conftest import make_dataset
from trainables.data import Dataset, Split
from trainables.data.examples import shown_examples


def recordings(*lengths: int, clip_frames: int = 4, loud: float = 1.0) -> Dataset:
    """Recordings of so many frames, the held-out ones; every second one is nearly silent."""
    rng = np.random.default_rng(0)
    values, starts, begin = [], [], 0
    for i, length in enumerate(lengths):
        values.append(rng.standard_normal((length, 2)) * (loud if i % 2 == 0 else 1e-3))
        starts += range(begin, begin + length - clip_frames + 1, clip_frames)
        begin += length
    split = Split(
        np.concatenate(values).astype(np.float32),
        np.array(starts, dtype=np.int64),
        np.zeros(len(starts), dtype=np.int64),
    )
    return Dataset(split, split, clip_frames, (2, clip_frames), 0.0, 1.0, "x", (), {})


def test_they_are_not_silent() -> None:
    dataset = recordings(*[21] * 12)
    for run in shown_examples(dataset, 4, frames=12):
        values = dataset.heldout.values[run[0] : run[-1] + 4]
        assert values.std() > 0.5


def test_a_run_lies_in_one_recording() -> None:
    dataset = recordings(*[21] * 12)
    runs = shown_examples(dataset, 4, frames=12)
    assert len(runs) == 4
    for run in runs:
        assert (np.diff(run) == 4).all()
        assert len(run) == 3
        assert run[0] // 21 == (run[-1] + 3) // 21


def test_they_differ_and_are_always_the_same() -> None:
    first, again = (shown_examples(recordings(*[21] * 9), 3, frames=8) for _ in range(2))
    assert len({int(run[0]) for run in first}) == 3
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_short_recordings_give_what_they_have() -> None:
    [run] = shown_examples(recordings(9, 9, 9), 1, frames=1000)
    assert len(run) == 2


def test_rather_more_examples_than_longer_ones() -> None:
    runs = shown_examples(recordings(21, 9, 9, 9), 3, frames=20)
    assert [len(run) for run in runs] == [2, 2, 2]


@pytest.mark.parametrize(("clips", "count"), [(1, 4), (2, 4), (3, 3), (5, 4), (1000, 4)])
def test_no_more_than_there_are(clips: int, count: int) -> None:
    dataset = recordings(*[5] * clips)
    runs = shown_examples(dataset, count)
    assert len(runs) == min(clips, count)
    assert len({int(run[0]) for run in runs}) == len(runs)


def test_items() -> None:
    dataset = make_dataset()
    items = Split(
        np.stack([np.full((3, 3), i % 7) * np.eye(3) for i in range(40)]).astype(np.float32),
        np.arange(40, dtype=np.int64),
        np.zeros(40, dtype=np.int64),
    )
    shown = shown_examples(
        Dataset(dataset.train, items, None, (3, 3), 0.0, 1.0, "x", (), {}), 4, frames=100
    )
    assert [len(run) for run in shown] == [1] * 4
    assert all(int(run[0]) % 7 >= 4 for run in shown)
