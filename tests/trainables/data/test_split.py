from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.split import Unit, choose, cut_clips, split_units


def units_of(lengths: list[int], files: list[str]) -> list[Unit]:
    begins = np.cumsum([0, *lengths]).tolist()
    return [
        Unit(file, f"{file}:{number}", (begins[number], length))
        for number, (file, length) in enumerate(zip(files, lengths, strict=True))
    ]


def rows_of(spans: list[tuple[int, int]]) -> list[int]:
    return [row for start, length in spans for row in range(start, start + length)]


@given(
    data=st.data(),
    clip_frames=st.one_of(st.none(), st.integers(1, 9)),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_sides_share_no_row_and_no_file_and_lose_none(data, clip_frames, share, seed):
    least = 2 * (clip_frames or 1)
    lengths = data.draw(st.lists(st.integers(least, least + 20), min_size=1, max_size=8))
    files = data.draw(
        st.lists(st.sampled_from("abcde"), min_size=len(lengths), max_size=len(lengths))
    )
    units = units_of(lengths, files)
    train, heldout, warnings = split_units(units, share, seed, clip_frames)
    train_rows, heldout_rows = rows_of(train), rows_of(heldout)
    assert train_rows and heldout_rows
    assert sorted(train_rows + heldout_rows) == list(range(sum(lengths)))
    if len(units) > 1:
        by_file = len(set(files)) > 1
        owner = np.repeat([u.file if by_file else u.name for u in units], lengths)
        assert not set(owner[train_rows]) & set(owner[heldout_rows])
        assert not warnings
    else:
        assert bool(warnings) == (clip_frames is not None)
        if clip_frames:
            assert min(len(train_rows), len(heldout_rows)) >= clip_frames


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    clip_frames=st.integers(1, 12),
)
@settings(max_examples=200, deadline=None)
def test_clips_lie_within_their_sequence_wherever_they_start(lengths, clip_frames):
    starts, slack = cut_clips(lengths, clip_frames)
    assert len(starts) == sum(length // clip_frames for length in lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths)
    for start, most in zip(starts.tolist(), slack.tolist(), strict=True):
        left = int(ends[owner[start]]) - start - clip_frames
        assert most == min(clip_frames - 1, left)
        assert owner[start] == owner[start + most + clip_frames - 1]
    assert (np.diff(starts) >= clip_frames).all()


@pytest.mark.parametrize(
    ("count", "share", "heldout"), [(10, 0.1, 1), (10, 0.25, 3), (2, 0.9, 1), (2, 0.01, 1)]
)
def test_share_is_by_count_and_leaves_one_on_each_side(count, share, heldout):
    assert len(choose(count, share, 0)) == heldout


def test_the_choice_depends_on_the_seed_alone():
    assert choose(100, 0.2, 3).tolist() == choose(100, 0.2, 3).tolist()
    assert choose(100, 0.2, 3).tolist() != choose(100, 0.2, 4).tolist()


def test_a_single_sequence_holds_out_its_tail_and_says_so():
    train, heldout, (line,) = split_units([Unit("a", "a", (0, 100))], 0.2, 0, 8)
    assert (train, heldout) == ([(0, 80)], [(80, 20)])
    assert "last 20 of 100 frames" in line


def test_one_example_cannot_be_split(refused):
    with refused("a.npy", "one example", "two or more"):
        split_units([Unit("a.npy", "a.npy", (0, 1))], 0.1, 0, None)
    with refused("a.npy", "15 frames", "need 16"):
        split_units([Unit("a.npy", "a.npy", (0, 15))], 0.1, 0, 8)
