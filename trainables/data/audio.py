"""`audio`: a folder of recordings, each mixed to mono, resampled and turned into log-mel frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.config_data import AudioData
from trainables.data.folder import allowed, list_files
from trainables.data.logmel import MelPlan, log_mel, plan, plan_warnings
from trainables.data.quiet import QuietStderr
from trainables.data.source import (
    Material,
    Source,
    UnusableError,
    check_file,
    in_order,
    read_files,
)

SILENCE = 1e-4  # a recording whose samples all are smaller holds nothing to learn
HIGHEST_RATE = 16_000  # Hz, unless the config asks for more

_quiet = QuietStderr()

Floats = NDArray[np.float32]


def open_source(config: AudioData, index: Path) -> Source:
    """List and hash the folder. Raises InputError where it holds no audio files."""
    listing = list_files(config.path, "audio")

    def read() -> Material:
        paths = [listing.root / name for name in listing.names]
        rates = [rate for rate in in_order(_rate, paths) if rate]
        rate = config.features.sample_rate or min([*rates, HIGHEST_RATE])
        settings = plan(config.features, rate)
        warnings = plan_warnings(settings)
        if config.features.sample_rate is None:
            warnings += _rate_warnings(rates, rate)
        pieces = read_files(listing.root, listing.names, partial(read_log_mel, plan=settings))
        return Material(chain(listing.closed, pieces), settings.details(), warnings)

    return Source(listing.where, listing.content(index), allowed("audio"), read)


def read_log_mel(path: Path, plan: MelPlan) -> Floats:
    """Read a recording as log-mel frames [frames, mels]; raises UnusableError for an empty one."""
    import soundfile  # noqa: PLC0415  not needed where the cache holds the data

    # As bytes, since a name need not be valid UTF-8.
    with _decoder(path):
        samples, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)
    if len(samples) == 0:
        raise UnusableError("empty")
    waveform = samples.mean(axis=1)
    if not np.isfinite(waveform).all():
        raise UnusableError("broken by values that are not finite")
    if np.abs(waveform).max() <= SILENCE:
        raise UnusableError("silent")
    return log_mel(resample(waveform, rate, plan.sample_rate), plan)


def resample(waveform: Floats, rate: int, target: int) -> Floats:
    """Bring a waveform [n] from one rate in Hz to another."""
    if rate == target:
        return waveform
    import librosa  # noqa: PLC0415  heavy

    return np.asarray(librosa.resample(waveform, orig_sr=rate, target_sr=target), np.float32)


def _rate(path: Path) -> int:
    """Read the sample rate from a file's header; 0 where there is none to read."""
    import soundfile  # noqa: PLC0415

    try:
        check_file(path)
        with _decoder(path):
            return int(soundfile.info(os.fsencode(path)).samplerate)
    except Exception:  # the reading proper will say what is wrong
        return 0


def _decoder(path: Path) -> AbstractContextManager[None]:
    return _quiet if path.suffix.lower() == ".mp3" else nullcontext()


def _rate_warnings(rates: Sequence[int], chosen: int) -> tuple[str, ...]:
    """Say so where one low rate brings down all the rest."""
    if not rates or max(rates) == chosen or chosen == HIGHEST_RATE:
        return ()
    return (
        f"sample rates from {min(rates)} to {max(rates)} Hz: all were resampled to the lowest; "
        "data.features.sample_rate sets another",
    )
