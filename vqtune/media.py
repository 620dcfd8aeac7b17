"""A trial's snapshot as W&B shows it: how the codes are used, reconstructions, their sound."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.snapshot import Snapshot

# W&B's limit for the bins of a histogram.
_BINS = 512
# Rows and columns from which on a picture need not be enlarged to be seen.
_SMALL = 64
_GAP = 4
_COLOURS = "magma"

Bytes = NDArray[np.uint8]


def wandb_media(snapshot: Snapshot) -> dict[str, Any]:
    """What to log beside a report's metrics.

    `code_use` is a histogram over the codes in the order of their use, the most used first: over
    samples W&B draws it as a map on which codes that come to life or die are seen. With several
    streams there is one for each, as `stream_0/code_use`. `reconstructions` is one picture,
    examples side by side above their reconstructions. `sound/…` are there with a trial's end.
    """
    import wandb  # noqa: PLC0415

    several = len(snapshot.counts) > 1
    logged: dict[str, Any] = {
        f"stream_{i}/code_use" if several else "code_use": wandb.Histogram(
            np_histogram=sorted_use(counts)
        )
        for i, counts in enumerate(snapshot.counts)
    }
    if snapshot.inputs:
        caption = "held-out examples, and below them what they are reconstructed to"
        logged["reconstructions"] = wandb.Image(sheet(snapshot), caption=caption)
    for name, wav in zip(("example", "reconstruction"), snapshot.sounds, strict=False):
        logged[f"sound/{name}"] = wandb.Audio(*_samples(wav), caption=name)
    return logged


def sorted_use(counts: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts [n] of codes by falling use, and the n + 1 ranks between which they stand.

    More codes than W&B has bins are put together, neighbours in rank.
    """
    ordered = np.sort(counts.astype(np.int64))[::-1]
    step = -(-len(ordered) // _BINS)
    edges = np.append(np.arange(0, len(ordered), step), len(ordered))
    return np.add.reduceat(ordered, edges[:-1]), edges


def sheet(snapshot: Snapshot) -> Bytes:
    """One picture [H, W, 3] of all examples above their reconstructions."""
    rows = [[_coloured(x, snapshot) for x in side] for side in (snapshot.inputs, snapshot.outputs)]
    return _stacked([_stacked(row, axis=1) for row in rows], axis=0)


def _coloured(values: Bytes, snapshot: Snapshot) -> Bytes:
    """A picture [H, W, 3]: images as they are, spectrograms with low bands at the bottom."""
    if snapshot.kind != "image":
        values = _palette()[values[::-1]]
    elif values.ndim == 2:
        values = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    larger = max(1, _SMALL // max(values.shape[:2]))
    return np.asarray(values.repeat(larger, axis=0).repeat(larger, axis=1))


def _stacked(parts: list[Bytes], axis: int) -> Bytes:
    """Pictures beside or below one another, with white between; shorter ones filled up."""
    longest = max(part.shape[1 - axis] for part in parts)
    filled: list[Bytes] = []
    for i, part in enumerate(parts):
        widths = [(0, 0), (0, 0), (0, 0)]
        widths[1 - axis] = (0, longest - part.shape[1 - axis])
        widths[axis] = (_GAP if i else 0, 0)
        filled.append(np.pad(part, widths, constant_values=255))
    return np.concatenate(filled, axis=axis)


@cache
def _palette() -> Bytes:
    """Colours [256, 3]."""
    import matplotlib  # noqa: PLC0415

    return np.asarray(matplotlib.colormaps[_COLOURS](range(256), bytes=True)[:, :3])


def _samples(wav: bytes) -> tuple[NDArray[np.int16], int]:
    import soundfile  # noqa: PLC0415

    samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
    return samples, rate
