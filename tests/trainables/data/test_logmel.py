from __future__ import annotations

import numpy as np
import pytest

from trainables.config_data import LogMel
from trainables.data.logmel import FLOOR, log_mel, mel_filters, plan, plan_warnings


def slaney(hertz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale, from its definition: linear below 1 kHz, logarithmic above."""
    above = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, 3 * hertz / 200, above)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("hertz", [110.0, 440.0, 1000.0, 3456.0])
def test_a_pure_tone_peaks_in_its_band(rate, hertz):
    settings = plan(LogMel(), rate)
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)
    band = (log_mel(tone, settings).mean(axis=0)).argmax()
    centres = np.linspace(0, slaney(np.array(rate / 2)), settings.mels + 2)[1:-1]
    nearest = np.abs(centres - slaney(np.array(hertz))).argmin()
    assert abs(int(band) - int(nearest)) <= 1


def test_white_noise_has_its_own_variance_in_every_band():
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 20).astype(np.float32)
    for rate in (8000, 16_000):
        power = np.exp(log_mel(noise, plan(LogMel(), rate))).mean(axis=0)
        np.testing.assert_allclose(power, 0.01, rtol=0.2)


def test_silence_is_the_floor():
    frames = log_mel(np.zeros(4000, np.float32), plan(LogMel(), 8000))
    np.testing.assert_allclose(frames, np.log(FLOOR), rtol=1e-6)


@pytest.mark.parametrize(
    ("rate", "window", "n_fft", "hop"),
    [(16_000, 512, 1024, 160), (8000, 256, 512, 80), (22_050, 706, 2048, 220)],
)
def test_milliseconds_become_samples(rate, window, n_fft, hop):
    settings = plan(LogMel(), rate)
    assert (settings.window, settings.n_fft, settings.hop) == (window, n_fft, hop)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (511, 0), (512, 1), (671, 1), (672, 2)])
def test_only_whole_windows_are_frames(samples, frames):
    settings = plan(LogMel(), 16_000)
    assert settings.frames(samples) == frames
    assert log_mel(np.zeros(samples, np.float32), settings).shape == (frames, 64)


def test_blocks_make_no_difference(monkeypatch):
    waveform = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    settings = plan(LogMel(), 8000)
    whole = log_mel(waveform, settings)
    monkeypatch.setattr("trainables.data.logmel._BLOCK", 7)
    np.testing.assert_allclose(log_mel(waveform, settings), whole, rtol=1e-5)


def test_default_bands_all_hold_a_bin_and_too_many_are_said(recwarn):
    for rate in (8000, 16_000, 44_100):
        settings = plan(LogMel(), rate)
        np.testing.assert_allclose(mel_filters(settings).sum(axis=1), 1, rtol=1e-5)
        assert plan_warnings(settings) == ()
    crowded = plan(LogMel(mels=512), 8000)
    (line,) = plan_warnings(crowded)
    assert "of 512 mel bands" in line
    assert not recwarn.list


def test_fmin_must_leave_a_band(refused):
    with refused("data.features.fmin", "4000", "below"):
        plan(LogMel(fmin=4000.0), 8000)
