"""Learning-rate schedules: a linear rise, then a cosine fall, lane by lane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.config import TrialConfig


class LaneRates:
    """The learning rates of the lanes of a stack, and their schedules.

    Attributes:
        model: learning rates of encoder and decoder, [L].
        codes: those of the codes, where they are trained, [L].
        scheduled: whether the rate of any lane changes.
    """

    def __init__(
        self, trials: Sequence[TrialConfig], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Read them from the lanes' configs."""
        self.scheduled = False
        rows = 6  # model, codes, budget, warmup, lr_final, the codes' own lr_final
        self._settings = torch.empty(rows, len(trials), device=device, dtype=dtype)
        self.model, self.codes, *_ = self._settings.unbind()
        self.take(trials)

    def take(self, trials: Sequence[TrialConfig]) -> None:
        """Set them anew, in the same tensors."""
        rows = [_settings(trial) for trial in trials]
        self._settings.copy_(torch.tensor(rows, dtype=torch.float64).mT)
        self.scheduled = any(row[3] > 0 or min(row[4:]) < 1 for row in rows)

    def factors(self, before: Tensor, after: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the two rates are multiplied by in a step, [L]; None for 1.

        Args:
            before: samples drawn before the step, int64 [L].
            after: the same after it.
        """
        if not self.scheduled:
            return None, None
        _, _, budget, warmup, final, codes_final = self._settings.unbind()
        done = before / budget
        rate = warm_rise(after / budget, warmup) * cosine_fall(done, final)
        return rate, rate * cosine_fall(done, codes_final)


def _settings(trial: TrialConfig) -> tuple[float, ...]:
    training, update = trial.training, trial.codebook.update
    # Only the update rules that train codes have these.
    ratio, codes_final = getattr(update, "lr_ratio", 1.0), getattr(update, "lr_final", 1.0)
    rates = (training.lr, training.lr * ratio)
    return (*rates, training.samples, training.warmup, training.lr_final, codes_final)


def cosine_fall(done: Tensor, final: Tensor) -> Tensor:
    """Factor [L] that falls from 1 to `final` [L] as `done` [L] goes from 0 to 1.

    final + (1 - final) (1 + cos(pi done)) / 2 (Loshchilov & Hutter 2017, SGDR, eq. 5).
    """
    return final + (1 - final) * (1 + torch.cos(math.pi * done.clamp(0, 1))) / 2


def warm_rise(done: Tensor, warmup: Tensor) -> Tensor:
    """Factor [L] that rises from 0 to 1 while `done` [L] goes from 0 to `warmup` [L]."""
    return (done / warmup.clamp_min(1e-12)).clamp_max(1)
