"""From log-mel frames back to something to listen to: the inverse of `logmel`, but for the phase.

The report plays held-out examples and their reconstructions by it; nothing trains on it.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from trainables.data.logmel import MelPlan, mel_filters

ITERATIONS = 32

_PEAK = 0.99
_TINY = 1e-20  # for divisions

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def waveform_of(log_mels: Floats, plan: MelPlan, seed: int = 0) -> Floats:
    """A waveform [window + (frames - 1) * hop] whose log-mel frames are about these.

    Undoes `logmel.log_mel` step by step: the floor, the filters, the division by the window's
    energy; then Griffin and Lim's iterations (1984, "Signal Estimation from Modified Short-Time
    Fourier Transform", with the momentum of Perraudin et al. 2013, as librosa has them) find
    phases. The first ones are drawn with `seed`, so equal frames sound equal.

    Args:
        log_mels: [frames, mels], not normalised.
        plan: what they were made with.
        seed: of the phases.
    """
    import librosa  # noqa: PLC0415  heavy

    frames, hop = _overlapping(log_mels.astype(np.float64), plan)
    power = _bins(np.maximum(np.exp(frames) - plan.floor, 0), plan)
    hann = np.hanning(plan.window + 1)[:-1]
    magnitude = np.sqrt(power * np.sum(hann**2)).astype(np.float32)
    # Frames are whole windows, so the ends are covered by less than a full overlap, where dividing
    # by the windows' sum would make clicks: silence on both sides, cut off again.
    around = -(-plan.n_fft // hop)
    waveform = librosa.griffinlim(
        np.pad(magnitude, ((0, 0), (around, around))),
        n_iter=ITERATIONS,
        hop_length=hop,
        win_length=plan.window,
        n_fft=plan.n_fft,
        window="hann",
        center=False,
        random_state=seed,
    )
    # librosa has the window in the middle of the n_fft samples, `log_mel` at their beginning.
    first = around * hop + (plan.n_fft - plan.window) // 2
    length = plan.window + (log_mels.shape[0] - 1) * plan.hop
    return np.asarray(waveform[first : first + length], np.float32)


def wav_bytes(waveform: Floats, rate: int) -> bytes:
    """A WAV file of 16-bit samples [n] at `rate` Hz; made quieter where it would clip."""
    import soundfile  # noqa: PLC0415

    peak = float(np.abs(waveform).max(initial=0))
    if peak > _PEAK:
        waveform = waveform * np.float32(_PEAK / peak)
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _overlapping(log_mels: Doubles, plan: MelPlan) -> tuple[Doubles, int]:
    """Frames at a hop of half a window at most, and that hop: without overlap phases are free."""
    if 2 * plan.hop <= plan.window:
        return log_mels, plan.hop
    hop = max(1, plan.window // 4)
    given = np.arange(len(log_mels)) * plan.hop
    wanted = np.arange(0, given[-1] + 1, hop)
    bands = [np.interp(wanted, given, band) for band in log_mels.T]
    return np.stack(bands, axis=1), hop


def _bins(mel_power: Doubles, plan: MelPlan) -> Doubles:
    """Powers [bins, frames] of which the filters make these [frames, mels].

    By Richardson's (1972) and Lucy's (1974) iteration, P <- P * A'(M / AP) / A'1, which keeps
    powers positive and minimises Kullback and Leibler's divergence. Least squares, as in
    librosa.feature.inverse, care for the loud bands only, while it is logarithms that must agree.
    """
    filters = mel_filters(plan)
    weights = np.maximum(filters.sum(axis=0), _TINY)[:, np.newaxis]
    goal = mel_power.T
    power = (filters.T @ goal) / weights
    for _ in range(ITERATIONS):
        power *= (filters.T @ (goal / np.maximum(filters @ power, _TINY))) / weights
    return np.asarray(power)
