"""Log-mel frames back to sound: what comes out has the frames that went in."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from trainables.config_data import LogMel
from trainables.data.audio import resample
from trainables.data.griffin_lim import _bins, wav_bytes, waveform_of
from trainables.data.logmel import MelPlan, log_mel, mel_filters, plan
from trainables.data.synthetic import synthesise

SECONDS = 1.2


def sines(rate: int) -> np.ndarray:
    time = np.arange(round(SECONDS * rate)) / rate
    tones = [0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (220, 660, 1900)]
    return np.sum(tones, axis=0).astype(np.float32)


def speech(rate: int) -> np.ndarray:
    return resample(synthesise(seed=0, index=3, seconds=SECONDS), 16_000, rate)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("sound", [sines, speech])
def test_the_frames_of_the_waveform_are_the_frames_that_went_in(sound, rate: int) -> None:
    """Within 1.3 dB on the mean, 0.3 in the natural logarithm; they vary by ten times that."""
    settings = plan(LogMel(), rate)
    given = log_mel(sound(rate), settings)
    waveform = waveform_of(given, settings)
    assert waveform.dtype == np.float32
    assert len(waveform) == settings.window + (len(given) - 1) * settings.hop
    again = log_mel(waveform, settings)
    assert again.shape == given.shape
    assert np.abs(again - given).mean() < 0.3
    assert given.std() > 2


@pytest.mark.parametrize(
    "features",
    [
        {"mels": 20, "window_ms": 64.0, "hop_ms": 16.0},
        {"mels": 128, "fmin": 60.0},  # some bands are empty
        {"mels": 1},
        {"window_ms": 10.0, "hop_ms": 10.0},  # frames do not overlap
        {"window_ms": 10.0, "hop_ms": 25.0},  # there are holes between them
        {"window_ms": 33.3, "hop_ms": 7.7},
    ],
)
def test_any_plan_can_be_undone(features: dict[str, float]) -> None:
    settings = plan(LogMel(**features), 8_000)
    waveform = waveform_of(log_mel(speech(8_000), settings), settings)
    assert np.isfinite(waveform).all()
    assert 0.05 < np.abs(waveform).max() < 20


def test_bins_have_the_power_that_the_bands_tell() -> None:
    settings = plan(LogMel(), 16_000)
    given = np.exp(log_mel(speech(16_000), settings).astype(np.float64))
    assert mel_filters(settings) @ _bins(given, settings) == pytest.approx(given.T, rel=0.1)


def test_it_is_as_loud_as_the_original() -> None:
    """Window, floor and filters are undone: nothing needs scaling afterwards."""
    settings, original = plan(LogMel(), 16_000), speech(16_000)
    waveform = waveform_of(log_mel(original, settings), settings)
    loudness = np.sqrt(np.mean(waveform**2) / np.mean(original**2))
    assert loudness == pytest.approx(1, abs=0.1)


def test_the_ends_do_not_click() -> None:
    settings = plan(LogMel(), 16_000)
    waveform = waveform_of(log_mel(sines(16_000), settings), settings)
    middle = np.abs(waveform[4000:-4000]).max()
    assert np.abs(waveform[:400]).max() < 1.5 * middle
    assert np.abs(waveform[-400:]).max() < 1.5 * middle


def test_the_floor_is_silence() -> None:
    settings = plan(LogMel(), 16_000)
    waveform = waveform_of(np.full((30, 64), np.log(settings.floor), np.float32), settings)
    assert np.abs(waveform).max() < 1e-3


def test_equal_frames_sound_equal() -> None:
    settings: MelPlan = plan(LogMel(), 8_000)
    frames = log_mel(speech(8_000), settings)
    np.testing.assert_array_equal(waveform_of(frames, settings), waveform_of(frames, settings))
    assert not np.array_equal(waveform_of(frames, settings), waveform_of(frames, settings, seed=1))


@pytest.mark.parametrize(("peak", "heard"), [(0.5, 0.5), (3.0, 0.99)])
def test_a_wav_file_has_16_bits_and_does_not_clip(peak: float, heard: float) -> None:
    waveform = (peak * np.sin(np.arange(4000) / 7)).astype(np.float32)
    data = wav_bytes(waveform, 8_000)
    read, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert (rate, len(read)) == (8_000, 4_000)
    assert soundfile.info(io.BytesIO(data)).subtype == "PCM_16"
    assert np.abs(read).max() == pytest.approx(heard, abs=1e-3)
    assert np.corrcoef(read, waveform)[0, 1] > 0.9999


def test_a_wav_file_of_silence() -> None:
    read, _ = soundfile.read(io.BytesIO(wav_bytes(np.zeros(100, np.float32), 8_000)))
    assert not read.any()
