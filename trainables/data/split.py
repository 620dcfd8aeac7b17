"""The split into training and held-out data, and the cutting of sequences into clips.

The split is by file: frames of one recording on both sides would make the held-out metrics
measure memory. Only where there is a single array is it split inside, and then without overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.source import shown
from trainables.errors import InputError

Span = tuple[int, int]  # first row, number of rows
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Unit:
    """A usable array: where it came from, and its rows among all that were read."""

    file: str
    name: str
    span: Span


def split_units(
    units: Sequence[Unit], share: float, seed: int, clip_frames: int | None
) -> tuple[list[Span], list[Span], tuple[str, ...]]:
    """Return the rows to train on, those held out, and warnings.

    By file where there are several; else by array where the one file holds several; else by item,
    or by time for a single sequence (`clip_frames` is None for items). Raises InputError where
    the single array is too small to have two sides.
    """
    groups = [unit.file for unit in units]
    if len(set(groups)) == 1:
        groups = [unit.name for unit in units]
    names = sorted(set(groups))
    if len(names) > 1:
        chosen = {names[i] for i in choose(len(names), share, seed)}
        train = [u.span for u, group in zip(units, groups, strict=True) if group not in chosen]
        heldout = [u.span for u, group in zip(units, groups, strict=True) if group in chosen]
        return train, heldout, ()
    start, rows = units[0].span
    if clip_frames is None:
        if rows < 2:
            raise InputError(f"{shown(units[0].name)}: found one example, allowed: two or more")
        held = np.isin(np.arange(rows), choose(rows, share, seed))
        return _runs(start, ~held), _runs(start, held), ()
    if rows < 2 * clip_frames:
        raise InputError(
            f"{shown(units[0].name)}: found one sequence of {rows} frames; a clip of "
            f"{clip_frames} frames to train on and one to hold out need {2 * clip_frames}"
        )
    tail = min(max(_round(share * rows), clip_frames), rows - clip_frames)
    warning = (
        f"one sequence only: its last {tail} of {rows} frames are held out, "
        "where several files would be split by file"
    )
    return [(start, rows - tail)], [(start + rows - tail, tail)], (warning,)


def choose(count: int, share: float, seed: int) -> Integers:
    """Choose which of `count` things are held out: their share, but one at least on each side."""
    heldout = min(max(_round(share * count), 1), count - 1)
    return np.sort(np.random.default_rng(seed).permutation(count)[:heldout])


def cut_clips(lengths: Sequence[int], clip_frames: int) -> tuple[Integers, Integers]:
    """Cut sequences that lie one after another into clips without overlap.

    Returns the first frame of each clip [n], and the frames by which it could start later [n]
    without reaching the next but one clip or leaving its own sequence.
    """
    starts, slack = [], []
    begin = 0
    for length in lengths:
        own = np.arange(length // clip_frames, dtype=np.int64) * clip_frames
        starts.append(begin + own)
        slack.append(np.minimum(clip_frames - 1, length - own - clip_frames))
        begin += length
    return np.concatenate(starts), np.concatenate(slack)


def _runs(start: int, mask: NDArray[np.bool_]) -> list[Span]:
    """Return the runs of true values as spans."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    pairs = edges.reshape(-1, 2).tolist()
    return [(start + first, end - first) for first, end in pairs]


def _round(value: float) -> int:
    return int(value + 0.5)
