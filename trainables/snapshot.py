"""What a report shows beside its numbers: how the codes are used, what examples come out as.

Small, as it travels with the report from the trial's process to the one that tracks it, which
draws it; see `vqtune.media`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainables.data import Dataset
from trainables.data.examples import Integers
from trainables.denormals import flushed_denormals
from trainables.shown import Floats, Kind, chosen, kind_of, listening, picture, rebuilt
from trainables.trainer import Trainer

# Rows and columns of a picture.
_PICTURE = (96, 224)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Snapshot:
    """A trial at a report.

    Attributes:
        counts: of each stream how often each code was chosen [K], over the held-out set.
        kind: what the examples are.
        inputs: held-out examples as pictures [H, W] or [H, W, 3], the lowest value 0, the
            highest 255; none where the trial has diverged.
        outputs: their reconstructions on the same scale.
        sounds: the first example and its reconstruction as WAV files; none where there is no
            sound, or where none was asked for.
    """

    counts: tuple[NDArray[np.uint32], ...]
    kind: Kind
    inputs: tuple[Bytes, ...] = ()
    outputs: tuple[Bytes, ...] = ()
    sounds: tuple[bytes, ...] = field(default=(), repr=False)


@flushed_denormals()
def snapshot(trainer: Trainer, sound: bool) -> Snapshot:
    """Look at a trial as it stands after a report.

    Args:
        trainer: the trial's.
        sound: whether to make the first example audible, which takes a tenth of a second or two.
    """
    counts = tuple(stream.astype(np.uint32) for stream in trainer.counts())
    kind = kind_of(trainer.dataset)
    if trainer.report["diverged"]:
        return Snapshot(counts, kind)
    before, after = rebuilt(trainer.evaluator, trainer.dataset, _examples(trainer.dataset))
    heard = listening(trainer.dataset) if sound else None
    pairs = [_scaled(x, y) for x, y in zip(before, after, strict=True)]
    return Snapshot(
        counts,
        kind,
        tuple(x for x, _ in pairs),
        tuple(y for _, y in pairs),
        (heard.wav(before[0]), heard.wav(after[0])) if heard is not None else (),
    )


@lru_cache(maxsize=1)
def _examples(dataset: Dataset) -> list[Integers]:
    """Chosen once for all reports of all trials."""
    return chosen(dataset)


def _scaled(x: Floats, y: Floats) -> tuple[Bytes, Bytes]:
    """Pictures of both, on the scale of the first."""
    low, high = float(x.min()), float(x.max())
    scale = 255 / max(high - low, 1e-12)

    def drawn(values: Floats) -> Bytes:
        grey = (picture(values, _PICTURE) - low) * scale
        return np.asarray(np.nan_to_num(grey).clip(0, 255).round(), np.uint8)

    return drawn(x), drawn(y)
