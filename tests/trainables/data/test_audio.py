from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from trainables.config_data import AudioData, LogMel
from trainables.data import load_dataset
from trainables.data.audio import read_log_mel, resample
from trainables.data.logmel import plan


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4")


def noise(rate: int, seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(rate * seconds)).astype("f4")


def config(folder: Path, **features: object) -> AudioData:
    return AudioData(path=str(folder), clip_frames=8, features=LogMel.model_validate(features))


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "WAV"])
def test_formats(tmp_path, extension):
    for number in range(3):
        path = tmp_path / f"{number}.{extension}"
        soundfile.write(path, noise(16_000, seed=number), 16_000, format=extension.lower())
    data = load_dataset(config(tmp_path))
    assert data.warnings == ()
    assert data.details["sample_rate"] == 16_000
    assert data.details["files"] == 3
    assert data.example_shape == (64, 8)


def test_details_are_all_that_an_inversion_needs(tmp_path):
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", noise(8000, seed=number), 8000)
    assert load_dataset(config(tmp_path, mels=20, fmin=50.0)).details == {
        "sample_rate": 8000,
        "n_fft": 512,
        "window": 256,
        "hop": 80,
        "mels": 20,
        "fmin": 50.0,
        "fmax": 4000.0,
        "floor": 1e-6,
        "files": 2,
    }


@pytest.mark.parametrize(
    ("rates", "wanted", "chosen", "said"),
    [
        ((44_100, 22_050), None, 16_000, False),
        ((8000, 8000), None, 8000, False),
        ((11_025, 16_000), None, 11_025, True),
        ((8000, 44_100), 16_000, 16_000, False),
    ],
)
def test_the_rate_is_the_lowest_unless_set(tmp_path, rates, wanted, chosen, said):
    for number, rate in enumerate(rates):
        soundfile.write(tmp_path / f"{number}.wav", noise(rate, seed=number), rate)
    data = load_dataset(config(tmp_path, sample_rate=wanted))
    assert data.details["sample_rate"] == chosen
    assert any("were resampled to the lowest" in line for line in data.warnings) == said


@pytest.mark.parametrize(("rate", "target"), [(44_100, 16_000), (8000, 16_000), (16_000, 16_000)])
def test_resampling_keeps_tone_and_length(rate, target):
    resampled = resample(tone(1000, rate), rate, target)
    assert len(resampled) == pytest.approx(target * 0.5, abs=1)
    middle = slice(len(resampled) // 4, -len(resampled) // 4)
    np.testing.assert_allclose(resampled[middle], tone(1000, target)[middle], atol=1e-3)


def test_channels_are_mixed(tmp_path):
    left, right = tone(500, 16_000), tone(2000, 16_000)
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], 1), 16_000, "FLOAT")
    soundfile.write(tmp_path / "mono.wav", (left + right) / 2, 16_000, "FLOAT")
    settings = plan(LogMel(), 16_000)
    both, mono = (read_log_mel(tmp_path / name, settings) for name in ("both.wav", "mono.wav"))
    np.testing.assert_allclose(both, mono, atol=1e-4)


def test_what_is_unusable_is_said_once(tmp_path, recwarn, capfd):
    rate = 16_000
    (tmp_path / "sub").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "sub" / f"good {number} ü.wav", noise(rate, seed=number), rate)
    soundfile.write(tmp_path / "silence.wav", np.full(rate, 9e-5), rate, "FLOAT")
    soundfile.write(tmp_path / "nan.wav", np.full(rate, np.nan), rate, "FLOAT")
    soundfile.write(tmp_path / "short.wav", noise(rate, 0.05), rate)
    soundfile.write(tmp_path / "no samples.wav", np.zeros(0), rate)
    (tmp_path / "empty.flac").touch()
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    for number in range(30):
        (tmp_path / f"text\n{number}.mp3").write_text("no sound at all" * 99)
    whole = (tmp_path / "sub" / "good 0 ü.wav").read_bytes()
    (tmp_path / "header.wav").write_bytes(whole[:20])
    (line,) = load_dataset(config(tmp_path)).warnings
    assert line.startswith("skipped 37 of 41: ")
    assert "32 broken (dangling.wav, header.wav, text\\n0.mp3, text\\n1.mp3, text\\n10.mp3" in line
    assert "text\\n24.mp3 and 12 more)" in line
    assert "1 broken by values that are not finite (nan.wav)" in line
    assert "2 empty (empty.flac, no samples.wav)" in line
    assert "1 silent (silence.wav)" in line
    assert "1 shorter than a clip of 8 frames (short.wav)" in line
    assert "good" not in line
    assert len(line.splitlines()) == 1
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_nothing_usable_is_an_error(tmp_path, refused):
    (tmp_path / "a.wav").write_text("no sound")
    soundfile.write(tmp_path / "b.wav", np.zeros(16_000), 16_000)
    with refused(str(tmp_path), "1 broken (a.wav)", "1 silent (b.wav)", ".flac"):
        load_dataset(config(tmp_path))


def test_a_single_recording_is_split_by_time(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(8000, 2.0), 8000)
    data = load_dataset(config(tmp_path))
    (line,) = data.warnings
    assert "held out" in line
    assert len(data.train.values) + len(data.heldout.values) == 197
