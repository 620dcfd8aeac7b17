"""A few held-out examples worth looking at and listening to: the same ones for every trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.data.dataset import Dataset

_CANDIDATES = 256  # whose values are looked at

Integers = NDArray[np.int64]


def shown_examples(dataset: Dataset, count: int, frames: int = 1) -> list[Integers]:
    """Choose up to `count` held-out examples that show something, by the data alone.

    They are spread over the third that varies most: neither silence nor an empty picture, nor one
    outlier after another.

    Args:
        dataset: the data.
        count: how many.
        frames: of clips, so many frames at least, where recordings have them: one example is then
            a run of clips that follow one another.

    Returns:
        First frames of the clips of each example, or its one item, as in `Split.starts`.
    """
    split, length = dataset.heldout, dataset.clip_frames
    rows = length or 1
    candidates = list(split.starts[:, np.newaxis])
    if length is not None:
        # Recordings lie one after another; only their ends, too short for a clip, are between.
        breaks = np.flatnonzero(np.diff(split.starts) != length) + 1
        runs = np.split(split.starts, breaks)
        clips = min(-(-frames // length), max(len(run) for run in runs))
        candidates = _cut(runs, clips)
        while clips > 1 and len(candidates) < count:  # most recordings are shorter than that
            clips -= 1
            candidates = _cut(runs, clips)
    some = np.linspace(0, len(candidates) - 1, min(len(candidates), _CANDIDATES)).round()
    candidates = [candidates[i] for i in some.astype(int)]
    spread = [float(split.values[run[0] : run[-1] + rows].std()) for run in candidates]
    order = np.argsort(spread, kind="stable")[::-1]
    third = max(min(count, len(order)), len(order) // 3)
    ranks = (np.arange(min(count, len(order))) + 0.5) * third / min(count, len(order))
    return [candidates[order[int(rank)]] for rank in ranks]


def _cut(runs: Sequence[Integers], clips: int) -> list[Integers]:
    """Cut runs into pieces of so many clips each."""
    return [
        run[first : first + clips]
        for run in runs
        for first in range(0, len(run) - clips + 1, clips)
    ]
