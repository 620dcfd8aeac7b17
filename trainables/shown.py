"""How held-out examples are shown: as a picture of a size, and as sound where the data is sound.

The report draws and plays them for the best trials, W&B for every one while it trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data import Dataset
from trainables.data.audio import resample
from trainables.data.examples import Integers, shown_examples
from trainables.data.griffin_lim import wav_bytes, waveform_of
from trainables.data.logmel import MelPlan
from trainables.evaluation import Evaluator

Kind = Literal["spectrogram", "image", "series"]
Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

EXAMPLES = 3
SECONDS = 2.0  # of sound in an example, where a recording has them

_HIGHEST_RATE = 16_000
# Sounds that are remembered: of a few examples and of what became of them.
_REMEMBERED = 6


@dataclass(frozen=True)
class Listening:
    """How log-mel frames are made audible."""

    plan: MelPlan
    rate: int

    @property
    def frames_per_second(self) -> float:
        """Frames of a second of sound."""
        return float(self.plan.sample_rate / self.plan.hop)

    def wav(self, log_mels: Floats) -> bytes:
        """A WAV file of a spectrogram [mels, frames], before normalisation."""
        frames = log_mels.astype(np.float32)
        return _wav(frames.tobytes(), frames.shape, self.plan, self.rate)


@lru_cache(maxsize=_REMEMBERED)
def _wav(log_mels: bytes, shape: tuple[int, ...], plan: MelPlan, rate: int) -> bytes:
    """Remembered, since all trials have the same examples."""
    frames = np.frombuffer(log_mels, np.float32).reshape(shape).T
    return wav_bytes(resample(waveform_of(frames, plan), plan.sample_rate, rate), rate)


def listening(dataset: Dataset) -> Listening | None:
    """How to hear the data; None where it is not sound."""
    values: dict[str, Any] = {
        name: dataset.details.get(name) for name in MelPlan.__dataclass_fields__
    }
    if None in values.values() or dataset.clip_frames is None:
        return None
    plan = MelPlan(**values)
    return Listening(plan, min(plan.sample_rate, _HIGHEST_RATE))


def chosen(dataset: Dataset) -> list[Integers]:
    """The held-out examples that are shown, see `shown_examples`; of sound long enough to hear."""
    heard = listening(dataset)
    frames = round(SECONDS * heard.frames_per_second) if heard is not None else 1
    return shown_examples(dataset, EXAMPLES, frames)


def rebuilt(
    evaluator: Evaluator, dataset: Dataset, examples: Sequence[Integers]
) -> tuple[tuple[Singles, ...], tuple[Singles, ...]]:
    """Examples and what the first lane makes of them, as the data were before normalisation.

    Each is [C, T] or [C, H, W]; clips that follow one another are one.
    """
    inputs, [outputs] = evaluator.reconstruct(np.concatenate(examples))
    cuts = np.cumsum([len(run) for run in examples])[:-1]
    mean, std = np.float32(dataset.mean), np.float32(dataset.std)

    def joined(side: Floats) -> tuple[Singles, ...]:
        runs = (np.concatenate(run, axis=-1) for run in np.split(side, cuts))
        return tuple(np.asarray(run, np.float32) * std + mean for run in runs)

    return joined(inputs), joined(outputs)


def kind_of(dataset: Dataset) -> Kind:
    """What its examples are to the eye."""
    if len(dataset.example_shape) == 3:
        return "image"
    return "series" if listening(dataset) is None else "spectrogram"


def picture(values: Floats, most: tuple[int, int]) -> NDArray[np.float32]:
    """An example [C, T] or [C, H, W] as it is drawn: [C, T], [H, W] or [H, W, 3].

    Of more than three channels the first is drawn; what is larger than `most` is shrunk.
    """
    if values.ndim == 3:
        values = values.transpose(1, 2, 0) if len(values) == 3 else values[0]
    for axis, limit in enumerate(most):
        step = -(-values.shape[axis] // limit)
        if step > 1:
            # Means of so many neighbours; what is left over at the end goes.
            whole = np.moveaxis(values, axis, 0)[: values.shape[axis] // step * step]
            means = whole.reshape(-1, step, *whole.shape[1:]).mean(axis=1)
            values = np.moveaxis(means, 0, axis)
    return np.asarray(values, np.float32)
