"""`synthetic`: speech-like audio from a small source-filter synthesiser, embedded in the package.

Everything is computed in short overlapping frames: spectra of glottal pulses and of noise are
multiplied by the vocal tract's response and added up again, so an utterance is a few array
operations. The waveforms go through the same log-mel code as a user's audio.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.config_data import SyntheticData
from trainables.data.audio import resample
from trainables.data.logmel import log_mel, plan, plan_warnings
from trainables.data.phones import Row, Speaker, draw_rows, draw_speaker
from trainables.data.source import Material, Piece, Source

VERSION = 1  # raise it with every change of what is heard: the cache goes by it
SAMPLE_RATE = 16_000
SPEAKERS = 32

_HOP = 80  # samples: 5 ms
_FFT = 512  # a frame of two hops, and room for the response to ring after it
_HERTZ = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)

_WINDOW = np.hanning(2 * _HOP + 1)[:-1].astype(np.float32)  # adds up to 1, a hop apart

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Spectra = NDArray[np.complex64]


def open_source(config: SyntheticData, index: Path) -> Source:
    """Name the source; nothing is synthesised yet."""

    def read() -> Material:
        settings = plan(config.features, config.features.sample_rate or SAMPLE_RATE)

        def one(index: int) -> Piece:
            waveform = synthesise(config.seed, index, config.seconds)
            features = log_mel(resample(waveform, SAMPLE_RATE, settings.sample_rate), settings)
            return Piece(f"utterance {index}", f"utterance {index}", features)

        pieces = map(one, range(config.files))
        return Material(pieces, settings.details(), plan_warnings(settings))

    return Source("synthetic", f"speech {VERSION}", "longer utterances: data.seconds", read)


class Tracks(NamedTuple):
    """The fields of `Target` as arrays [frames], a hop apart."""

    f1: Array
    f2: Array
    f3: Array
    zero: Array
    voicing: Array
    breath: Array
    noise: Array
    centre: Array
    octaves: Array
    semitones: Array
    effort: Array


def synthesise(seed: int, index: int, seconds: float) -> Floats:
    """Utterance `index` of the collection `seed`: a float32 waveform [n] at 16 kHz within ±1.

    It lasts between 0.6 and 1.4 times `seconds` and depends on nothing but the arguments.
    """
    rng = np.random.default_rng([seed, 1, index])
    speaker = draw_speaker(np.random.default_rng([seed, 2, int(rng.integers(SPEAKERS))]))
    samples = round(seconds * rng.uniform(0.6, 1.4) * SAMPLE_RATE)
    rows = draw_rows(rng, speaker, samples / SAMPLE_RATE)
    tracks = _tracks(rng, rows, speaker, frames=samples // _HOP + 2)
    pulses = _spectra(_pulses(rng, speaker, tracks, samples))
    noise = _spectra(rng.standard_normal(samples, np.float32))

    hoarse = tracks.breath + speaker.breath * tracks.voicing
    speech: Spectra = pulses * _column(tracks.voicing) + noise * _column(hoarse)
    speech *= _tract(tracks, speaker)
    speech += noise * _constriction(tracks)
    power = np.mean(np.abs(speech) ** 2) / np.sum(_WINDOW**2)
    level = np.float32(10 ** (rng.uniform(-26, -16) / 20) / np.sqrt(power + 1e-9))
    sound = (speech * level + noise * _background(rng)) * _room(rng)
    waveform = _overlap_add(np.asarray(sound, np.complex64), samples)
    return np.asarray(waveform / max(1.0, float(np.abs(waveform).max())), np.float32)


def _tracks(rng: np.random.Generator, rows: list[Row], speaker: Speaker, frames: int) -> Tracks:
    """Turn the rows into smooth tracks.

    Smoothing piecewise constant targets gives what articulators do: they move between targets
    all the time, and in short phones do not get there.
    """
    ends = np.cumsum([duration for _, duration in rows]) * SAMPLE_RATE / _HOP
    which = np.minimum(np.searchsorted(ends, np.arange(frames), side="right"), len(rows) - 1)
    steps = np.array([target for target, _ in rows], np.float64)[which]  # [frames, fields]
    tracks = Tracks(*_smooth(steps, 0.014).T)
    moving = Tracks(*_smooth(steps, speaker.inertia).T)
    pitch = Tracks(*_smooth(steps, 0.1).T).semitones
    pitch = pitch + 2 * _smooth(rng.standard_normal((frames, 1)), 0.1)[:, 0]
    return tracks._replace(
        f1=moving.f1,
        f2=moving.f2,
        f3=moving.f3,
        zero=moving.zero,
        effort=moving.effort,
        semitones=pitch,
    )


def _smooth(steps: Array, seconds: float) -> Array:
    """Convolve [frames, n] along the frames with a Hann window of that length."""
    width = 2 * round(seconds * SAMPLE_RATE / _HOP / 2) + 1
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(steps, ((width // 2, width // 2), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)
    return np.asarray(windows @ (window / window.sum()))


def _pulses(rng: np.random.Generator, speaker: Speaker, tracks: Tracks, samples: int) -> Array:
    """Glottal pulses [samples] of mean power 1, each between two samples where it falls."""
    hertz = speaker.pitch * 2 ** (tracks.semitones / 12)
    hertz = np.interp(np.arange(samples) / _HOP, np.arange(len(hertz)), np.clip(hertz, 50, 500))
    phase = np.cumsum(hertz / SAMPLE_RATE)
    cycles = np.arange(1.0, np.floor(phase[-1]))
    cycles += speaker.jitter * rng.standard_normal(len(cycles))
    times = np.interp(cycles, phase, np.arange(samples))
    whole = np.floor(times).astype(np.int64)
    heights = np.sqrt(SAMPLE_RATE / hertz[whole])
    heights *= 1 + speaker.shimmer * rng.standard_normal(len(whole))
    pulses = np.bincount(whole, heights * (1 - (times - whole)), samples + 1)
    pulses += np.bincount(whole + 1, heights * (times - whole), samples + 1)
    return np.asarray(pulses[:samples])


def _tract(tracks: Tracks, speaker: Speaker) -> Spectra:
    """Response [frames, bins] of the vocal tract, from the glottis to the lips.

    A cascade of second-order sections, normalised to 1 at 0 Hz: seven formants, a nasal pole and
    zero that cancel unless the phone is nasal, a first-order fall for source and radiation.
    """
    still = np.ones_like(tracks.f1)
    sections = [
        _section(tracks.f1 * speaker.formants, 60 * speaker.bandwidths),
        _section(tracks.f2 * speaker.formants, 80 * speaker.bandwidths),
        _section(tracks.f3 * speaker.formants, 130 * speaker.bandwidths),
        _section(270 * still, 100),
    ]
    for number, factor in enumerate(speaker.upper, start=4):  # a uniform tract has (2n - 1) · 500
        hertz = min((2 * number - 1) * 500 * speaker.formants * factor, 7800)
        sections.append(_section(hertz * still, 60 * number * speaker.bandwidths))
    fall = np.exp(-2 * np.pi * speaker.tilt * 2**tracks.effort / SAMPLE_RATE)
    denominator = np.stack([np.ones_like(fall), -fall], axis=1)
    for section in sections:
        denominator = _times(denominator, section)
    numerator = _section(tracks.zero, 100)
    gain = denominator.sum(1) / numerator.sum(1)
    response = np.fft.rfft(numerator, _FFT) / np.fft.rfft(denominator, _FFT)
    return np.asarray(response * gain[:, None], np.complex64)


def _section(hertz: Array | float, bandwidth: float) -> Array:
    """Coefficients [frames, 3] of 1 - 2 r cos(θ) / z + r² / z² (Klatt 1980)."""
    radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
    cosine = np.cos(2 * np.pi * np.asarray(hertz) / SAMPLE_RATE)
    ones = np.ones_like(cosine)
    return np.stack([ones, -2 * radius * cosine, radius**2 * ones], axis=1)


def _times(left: Array, right: Array) -> Array:
    """Products [frames, m + n - 1] of polynomials [frames, m] and [frames, n]."""
    product = np.zeros((len(left), left.shape[1] + right.shape[1] - 1))
    for shift in range(right.shape[1]):
        product[:, shift : shift + left.shape[1]] += left * right[:, shift : shift + 1]
    return product


def _constriction(tracks: Tracks) -> Floats:
    """Amplitude response [frames, bins] of frication noise: a bump on a logarithmic axis."""
    octaves = np.log2(np.maximum(_HERTZ, 20)) - np.log2(tracks.centre)[:, None]
    bump = np.exp(-0.5 * (octaves / tracks.octaves[:, None]).astype(np.float32) ** 2)
    return np.asarray(bump * _column(tracks.noise), np.float32)


def _room(rng: np.random.Generator) -> Floats:
    """Amplitude response [bins] of a microphone and its distance: ±6 dB, slowly over frequency."""
    position = np.log2(np.maximum(_HERTZ, 60) / 60) / np.log2(8000 / 60)
    waves = np.cos(np.pi * np.arange(1, 5)[:, None] * position)
    return np.asarray(10 ** (rng.normal(0, 2.5, 4) @ waves / 20), np.float32)


def _background(rng: np.random.Generator) -> Floats:
    """Amplitudes [bins] of light background noise, with a level and a colour of its own."""
    level = 10 ** (rng.uniform(-75, -45) / 20)
    return np.asarray(level * (np.maximum(_HERTZ, 100) / 500) ** rng.uniform(-1.2, 0.2), np.float32)


def _spectra(signal: Array | Floats) -> Spectra:
    """Spectra [frames, bins] of Hann-windowed frames of two hops, one hop apart."""
    padded = np.pad(signal.astype(np.float32), (_HOP, 2 * _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * _HOP)[::_HOP]
    frames = frames[: len(signal) // _HOP + 2]
    return np.asarray(np.fft.rfft(frames * _WINDOW, _FFT), np.complex64)


def _overlap_add(spectra: Spectra, samples: int) -> Floats:
    """Return the signal [samples] whose frames, a hop apart, have these spectra."""
    frames = np.fft.irfft(spectra, _FFT)
    pieces = -(-_FFT // _HOP)
    total = np.zeros((len(frames) + pieces, _HOP), np.float32)
    for piece in range(pieces):
        part = frames[:, piece * _HOP : (piece + 1) * _HOP]
        total[piece : piece + len(frames), : part.shape[1]] += part
    return total.reshape(-1)[_HOP : _HOP + samples]


def _column(track: Array) -> Floats:
    return track[:, None].astype(np.float32)
