"""A snapshot as W&B is given it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.snapshot import Snapshot
from vqtune.media import sheet, sorted_use, wandb_media

X = np.arange(64 * 200, dtype=np.int64).reshape(64, 200)
SPEECH = Snapshot(
    counts=(np.array([3, 0, 5, 1], np.uint32),),
    kind="spectrogram",
    inputs=((X % 256).astype(np.uint8), (X[:, :100] % 256).astype(np.uint8)),
    outputs=((X % 128).astype(np.uint8), (X[:, :100] % 128).astype(np.uint8)),
)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=3000))
def test_the_histogram_is_of_all_counts_by_falling_use(counts: list[int]) -> None:
    values, edges = sorted_use(np.array(counts, np.uint32))
    assert values.sum() == sum(counts)
    assert len(edges) == len(values) + 1 <= 513
    assert (edges[0], edges[-1]) == (0, len(counts))
    assert np.all(np.diff(edges) > 0)
    if len(counts) <= 512:
        assert values.tolist() == sorted(counts, reverse=True)
    else:
        means = values / np.diff(edges)
        assert np.all(np.diff(means) <= 0)


def test_examples_stand_above_their_reconstructions() -> None:
    drawn = sheet(SPEECH)
    assert drawn.shape == (64 + 4 + 64, 200 + 4 + 100, 3)
    white = np.full(3, 255)
    np.testing.assert_array_equal(drawn[64:68], np.broadcast_to(white, (4, 304, 3)))
    np.testing.assert_array_equal(drawn[:, 200:204], np.broadcast_to(white, (132, 4, 3)))
    assert not np.array_equal(drawn[:64, :200], drawn[68:, :200])


def test_low_bands_are_at_the_bottom_and_dark_where_there_is_little() -> None:
    x = np.zeros((64, 80), np.uint8)
    x[:8] = 255
    drawn = sheet(replace(SPEECH, inputs=(x,), outputs=(x,))).astype(int).sum(axis=2)
    assert drawn[0, 0] < 10
    assert drawn[60, 0] > 600


def test_an_image_is_drawn_as_it_is_and_a_small_one_larger() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    colour = np.stack([grey, grey[::-1], grey.T], axis=2)
    drawn = sheet(Snapshot((), "image", (grey, colour), (grey, colour)))
    assert drawn.shape == (64 + 4 + 64, 64 + 4 + 64, 3)
    np.testing.assert_array_equal(drawn[:64:8, :64:8, 1], grey)
    np.testing.assert_array_equal(drawn[:64:8, 68::8], colour)


def test_every_stream_has_its_histogram() -> None:
    several = replace(SPEECH, counts=SPEECH.counts * 3)
    assert "code_use" in wandb_media(SPEECH)
    assert {"stream_0/code_use", "stream_2/code_use"} <= wandb_media(several).keys()


@pytest.mark.parametrize("kind", ["spectrogram", "series", "image"])
def test_a_trial_without_examples_has_its_histogram_alone(kind: str) -> None:
    nothing = replace(SPEECH, kind=kind, inputs=(), outputs=())
    assert list(wandb_media(nothing)) == ["code_use"]
