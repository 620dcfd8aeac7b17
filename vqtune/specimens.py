"""Looks into a run's best trials for the report: loads their checkpoints, trains nothing.

Whatever is missing or broken becomes a line in the specimen's note; the report goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.flatten import row_dicts
from analysis.records import Records
from analysis.specimen import Specimen, Specimens
from trainables.data import Dataset
from trainables.data.audio import resample
from trainables.data.examples import shown_examples
from trainables.data.griffin_lim import wav_bytes, waveform_of
from trainables.data.logmel import MelPlan
from trainables.errors import InputError
from trainables.examine import Examination, Trained, examine, restore

EXAMPLES = 3
SECONDS = 2.0  # of sound in an example, where a recording has them

# What an example may have, so that the page stays small: the sound is cut, the picture shrunk.
_LONGEST_SECONDS = 3.0
_PICTURE = (160, 320)
_HIGHEST_RATE = 16_000
# Beyond this the metrics of another machine are not those that were recorded.
_ROUNDING = 1e-3

Kind = Literal["spectrogram", "image", "series"]
Floats = NDArray[np.floating[Any]]


def specimens(records: Records, titles: Mapping[str, str]) -> Specimens:
    """Look into the codebooks of some trials.

    Args:
        records: their run.
        titles: what to call each trial, by trial_id, in the order in which they are shown.
    """
    folders = {row["trial_id"]: row["folder"] for row in row_dicts(records.trials)}
    found = [
        _specimen(trial_id, title, folders.get(trial_id)) for trial_id, title in titles.items()
    ]
    kinds = [kind for _, kind in found if kind is not None]
    note = "" if kinds or not found else "No codebook of this run can be looked into here."
    return Specimens(tuple(one for one, _ in found), kinds[0] if kinds else "series", note)


def _specimen(trial_id: str, title: str, folder: Path | None) -> tuple[Specimen, Kind | None]:
    nothing = Specimen(trial_id, title, (), None, None, None, (), (), (), None, "")
    if folder is None:
        return replace(nothing, note="is not in this run"), None
    try:
        trained = restore(folder)
        listening = _listening(trained.dataset)
        frames = round(SECONDS * listening.frames_per_second) if listening else 1
        found = examine(trained, shown_examples(trained.dataset, EXAMPLES, frames))
        return _drawn(nothing, trained, found, listening), _kind(trained.dataset)
    except InputError as error:
        return replace(nothing, note=str(error)), None
    except Exception as error:  # a user's modules and data may raise anything
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return replace(nothing, note=told), None


def _drawn(
    nothing: Specimen, trained: Trained, found: Examination, listening: _Listening | None
) -> Specimen:
    axes = _principal_axes(found.latents)
    longest = None
    if listening is not None:
        longest = max(1, round(_LONGEST_SECONDS * listening.frames_per_second))
    inputs, outputs = (
        [values[..., :longest] for values in side] for side in (found.inputs, found.outputs)
    )
    notes = [_off_record(trained, found)]
    channels = trained.dataset.example_shape[0]
    if _kind(trained.dataset) == "image" and channels not in (1, 3):
        notes.append(f"of {channels} channels the first is shown")
    return replace(
        nothing,
        histograms=found.histograms,
        codebook=axes(found.codes),
        latents=axes(found.latents),
        code_use=found.code_use,
        inputs=tuple(_picture(x) for x in inputs),
        outputs=tuple(_picture(x) for x in outputs),
        audio=()
        if listening is None
        else tuple(
            (listening.wav(x), listening.wav(y)) for x, y in zip(inputs, outputs, strict=True)
        ),
        sample_rate=None if listening is None else listening.rate,
        note="; ".join(note for note in notes if note),
    )


def _off_record(trained: Trained, found: Examination) -> str:
    """Say so where the codes are not used as the trial recorded: numbers differ by machine."""
    then, made = trained.report["perplexity"], trained.made
    if abs(found.perplexity - then) <= _ROUNDING * then:
        return ""
    here = f"torch {torch.__version__} on {trained.stack.device.type}"
    there = f"torch {made['versions']['torch']} on {made['device']}"
    return f"perplexity is {found.perplexity:.4g} here ({here}), {then:.4g} was recorded ({there})"


def _principal_axes(latents: Floats) -> Callable[[Floats], Floats]:
    """The projection [n, d] to [n, 2] on the latents' first two principal components.

    Components that there are not, in one dimension or of latents that are all equal, give zeros.
    """
    centre = latents.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(np.atleast_2d(np.cov(latents, rowvar=False, dtype=np.float64)))
    main = directions[:, ::-1][:, :2]
    # The sign is free: by its largest entry, so that a picture is always the same.
    main = main * np.sign(np.take_along_axis(main, np.abs(main).argmax(0)[None], 0))
    main = np.pad(main, ((0, 0), (0, 2 - main.shape[1])))
    return lambda points: np.asarray((points - centre) @ main, np.float32)


@dataclass(frozen=True)
class _Listening:
    """How log-mel frames are made audible."""

    plan: MelPlan
    rate: int

    @property
    def frames_per_second(self) -> float:
        return float(self.plan.sample_rate / self.plan.hop)

    def wav(self, log_mels: Floats) -> bytes:
        """A WAV file of a spectrogram [mels, frames]."""
        return _wav(log_mels.tobytes(), log_mels.shape, self.plan, self.rate)


@lru_cache(maxsize=2 * EXAMPLES)
def _wav(log_mels: bytes, shape: tuple[int, ...], plan: MelPlan, rate: int) -> bytes:
    """Remembered, since all trials have the same examples."""
    frames = np.frombuffer(log_mels, np.float32).reshape(shape).T
    return wav_bytes(resample(waveform_of(frames, plan), plan.sample_rate, rate), rate)


def _listening(dataset: Dataset) -> _Listening | None:
    """How to hear the data; None where it is not sound."""
    values: dict[str, Any] = {
        name: dataset.details.get(name) for name in MelPlan.__dataclass_fields__
    }
    if None in values.values() or dataset.clip_frames is None:
        return None
    plan = MelPlan(**values)
    return _Listening(plan, min(plan.sample_rate, _HIGHEST_RATE))


def _kind(dataset: Dataset) -> Kind:
    if len(dataset.example_shape) == 3:
        return "image"
    return "series" if _listening(dataset) is None else "spectrogram"


def _picture(values: Floats) -> Floats:
    """An example [C, T] or [C, H, W] as it is drawn: [C, T], [H, W] or [H, W, 3], of a size."""
    if values.ndim == 3:
        values = values.transpose(1, 2, 0) if len(values) == 3 else values[0]
    for axis, most in enumerate(_PICTURE):
        step = -(-values.shape[axis] // most)
        if step > 1:
            # Means of so many neighbours; what is left over at the end goes.
            whole = np.moveaxis(values, axis, 0)[: values.shape[axis] // step * step]
            means = whole.reshape(-1, step, *whole.shape[1:]).mean(axis=1)
            values = np.moveaxis(means, 0, axis)
    return np.asarray(values, np.float32)
