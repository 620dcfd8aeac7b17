"""Log-mel spectrograms: from a waveform to the frames that clips are cut from.

`audio` and `synthetic` share it, so the embedded data takes the same road as a user's own.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config_data import LogMel
from trainables.errors import InputError

#: Added to the mel power before the logarithm: white noise 60 dB below full scale, so that a
#: pause is a plain floor at -13.8 and digital silence no infinity. On recorded prompts at 8 kHz
#: the mean level of a frame then makes 43% of the variance, with a floor of 1e-12 it makes 64%.
FLOOR = 1e-6

_BLOCK = 4096  # frames transformed at once, so that an hour of audio needs little memory

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MelPlan:
    """Log-mel settings in samples at one sample rate; all that an inversion needs."""

    sample_rate: int
    n_fft: int
    window: int
    hop: int
    mels: int
    fmin: float
    fmax: float
    floor: float = FLOOR

    def details(self) -> dict[str, Any]:
        """Return plain values for `Dataset.details`."""
        return asdict(self)

    def frames(self, samples: int) -> int:
        """Count the frames of a waveform: only whole windows, no padding at the ends."""
        return max(0, 1 + (samples - self.window) // self.hop)


def plan(features: LogMel, sample_rate: int) -> MelPlan:
    """Turn milliseconds into samples.

    n_fft is the smallest power of two of at least two windows: zero-padding interpolates the
    spectrum, so that the narrow mel filters at low frequencies are not left without a bin.
    Raises InputError where fmin leaves no band below the Nyquist frequency.
    """
    if features.fmin >= sample_rate / 2:
        raise InputError(
            f"found {features.fmin:g}, allowed below half the sample rate, {sample_rate / 2:g} Hz",
            "data.features.fmin",
        )
    window = max(2, round(features.window_ms * sample_rate / 1000))
    return MelPlan(
        sample_rate=sample_rate,
        n_fft=2 ** int(np.ceil(np.log2(2 * window))),
        window=window,
        hop=max(1, round(features.hop_ms * sample_rate / 1000)),
        mels=features.mels,
        fmin=features.fmin,
        fmax=sample_rate / 2,
    )


def log_mel(waveform: Floats, plan: MelPlan) -> Floats:
    """Natural log of the mel power plus FLOOR, [frames, mels], of a waveform [n] within ±1.

    The power of a bin is |X|² / Σ window², and a band is the weighted mean of its bins, so white
    noise of variance v has power v in every band, whatever the window and the sample rate.
    """
    frames = plan.frames(len(waveform))
    if frames == 0:
        return np.empty((0, plan.mels), np.float32)
    hann = np.hanning(plan.window + 1)[:-1].astype(np.float32)
    filters = mel_filters(plan)
    windows = np.lib.stride_tricks.sliding_window_view(waveform, plan.window)[:: plan.hop]
    features = np.empty((frames, plan.mels), np.float32)
    for start in range(0, frames, _BLOCK):
        block = windows[start : start + _BLOCK] * (hann / np.sqrt(np.sum(hann**2)))
        spectrum = np.fft.rfft(block, plan.n_fft)
        power = spectrum.real**2 + spectrum.imag**2
        features[start : start + _BLOCK] = np.log((filters @ power.T).T + np.float32(plan.floor))
    return features


def plan_warnings(plan: MelPlan) -> tuple[str, ...]:
    """Say so where bands are too narrow to hold a bin."""
    empty = int(np.sum(mel_filters(plan).sum(axis=1) == 0))
    if not empty:
        return ()
    return (
        f"{empty} of {plan.mels} mel bands are too narrow to hold a frequency and stay constant; "
        "fewer data.features.mels or a longer window_ms avoids it",
    )


@lru_cache(maxsize=4)
def mel_filters(plan: MelPlan) -> Any:
    """Slaney's triangular filters [mels, bins], each of which sums to 1; 0 where it has no bin.

    Sparse, as a dense product would wake the threads of BLAS and have them spin between calls.
    """
    # Heavy, and not needed where the cache holds the data.
    import librosa  # noqa: PLC0415
    from scipy import sparse  # type: ignore[import-untyped]  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty filters, for which there is `plan_warnings`
        filters = librosa.filters.mel(
            sr=plan.sample_rate,
            n_fft=plan.n_fft,
            n_mels=plan.mels,
            fmin=plan.fmin,
            fmax=plan.fmax,
            norm=None,
        )
    sums = filters.sum(axis=1, keepdims=True)
    return sparse.csr_array((filters / np.where(sums > 0, sums, 1)).astype(np.float32))
