from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from trainables.config_data import LogMel, SyntheticData
from trainables.data import load_dataset
from trainables.data.logmel import log_mel, plan
from trainables.data.synthetic import SAMPLE_RATE, synthesise

SMALL = SyntheticData(files=6, seconds=0.8)


@pytest.mark.parametrize("index", range(3))
def test_waveforms_are_sound(index):
    waveform = synthesise(0, index, 2.0)
    assert waveform.dtype == np.float32
    assert 0.6 * 2 * SAMPLE_RATE <= len(waveform) <= 1.4 * 2 * SAMPLE_RATE
    assert np.isfinite(waveform).all()
    assert 0.01 < np.abs(waveform).max() <= 1


def test_the_same_in_another_process():
    code = (
        "import hashlib\nfrom trainables.data.synthetic import synthesise\n"
        "print(hashlib.sha256(synthesise(3, 5, 1.0).tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = hashlib.sha256(synthesise(3, 5, 1.0).tobytes()).hexdigest()
    assert there.stdout.strip() == here


def test_seed_and_index_make_the_utterance():
    first = synthesise(0, 0, 0.5)
    for other in (synthesise(1, 0, 0.5), synthesise(0, 1, 0.5)):
        length = min(len(first), len(other))
        assert abs(np.corrcoef(first[:length], other[:length])[0, 1]) < 0.3


def test_the_sound_has_not_changed_without_its_version():
    # Rough enough for any platform. If it fails on purpose, raise `synthetic.VERSION`.
    frames = log_mel(synthesise(0, 0, 1.0), plan(LogMel(mels=4), SAMPLE_RATE))
    np.testing.assert_allclose(frames.mean(axis=0), GOLDEN, atol=0.02)


GOLDEN = [-6.63, -10.06, -9.48, -10.79]


def test_speech_is_varied():
    """Voiced, unvoiced and silent stretches, of many spectra: not a few clusters, not one line."""
    settings = plan(LogMel(), SAMPLE_RATE)
    frames = np.concatenate([log_mel(synthesise(0, i, 2.0), settings) for i in range(20)])
    loud = frames[frames.mean(axis=1) > frames.mean()]
    tilt = loud[:, :20].mean(axis=1) - loud[:, 44:].mean(axis=1)
    assert (tilt > 3).mean() > 0.2  # voiced
    assert (tilt < 0).mean() > 0.02  # fricatives and bursts
    assert (frames.mean(axis=1) < -12).mean() > 0.05  # pauses
    variances = np.linalg.eigvalsh(np.cov(frames.T))[::-1]
    assert np.searchsorted(np.cumsum(variances) / variances.sum(), 0.9) >= 3


def test_load_dataset():
    data = load_dataset(SMALL)
    assert data.example_shape == (64, 32)
    assert data.details["sample_rate"] == SAMPLE_RATE
    assert data.details["files"] == 6
    assert len(data.heldout) >= 1
    lower = SMALL.model_copy(update={"features": LogMel(sample_rate=8000, mels=20)})
    assert load_dataset(lower).example_shape == (20, 32)


def test_utterances_too_short_for_a_clip(refused):
    with refused("synthetic", "6 shorter than a clip of 32 frames", "data.seconds"):
        load_dataset(SMALL.model_copy(update={"seconds": 0.21}))


def test_the_seed_changes_the_fingerprint():
    other = SMALL.model_copy(update={"seed": 1})
    assert load_dataset(SMALL).fingerprint != load_dataset(other).fingerprint
