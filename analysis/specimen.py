"""What the report shows from inside one trained codebook, as plain arrays.

`vqtune report` computes specimens with the trial's weights; `analysis.report` only draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Kind = Literal["spectrogram", "image", "series"]
Array = npt.NDArray[np.floating[Any] | np.integer[Any]]


@dataclass(frozen=True)
class Specimen:
    """One trial, looked into.

    Attributes:
        trial_id: whose codebook it is.
        title: `baseline` or `No. 1: t0013`.
        histograms: counts [K] of each stream over the held-out set.
        codebook: 2-D projection of the first stream's codes [K, 2]; None where there is none.
        latents: 2-D projection of held-out latents [n, 2] on the same axes; None likewise.
        code_use: counts [K] of the codes in `codebook`; None likewise.
        inputs: a few held-out examples as the data were before normalisation: images [H, W] or
            [H, W, 3], spectrograms [mels, frames], series [channels, time].
        outputs: their reconstructions, of the same shapes.
        audio: WAV files of inputs and outputs where the data is audio, else empty.
        sample_rate: of `audio`, in Hz; None without it.
        note: why something is missing; empty if nothing is.

    """

    trial_id: str
    title: str
    histograms: tuple[Array, ...]
    codebook: Array | None
    latents: Array | None
    code_use: Array | None
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    audio: tuple[tuple[bytes, bytes], ...]
    sample_rate: int | None
    note: str


class Specimens(NamedTuple):
    """The baseline and the best trials, in the order in which they are shown."""

    trials: tuple[Specimen, ...]
    kind: Kind
    note: str
