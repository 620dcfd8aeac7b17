"""Learning-rate schedules: a linear rise, then a cosine fall, lane by lane."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_fall(done: Tensor, final: Tensor) -> Tensor:
    """Factor [L] that falls from 1 to `final` [L] as `done` [L] goes from 0 to 1.

    final + (1 - final) (1 + cos(pi done)) / 2 (Loshchilov & Hutter 2017, SGDR, eq. 5).
    """
    return final + (1 - final) * (1 + torch.cos(math.pi * done.clamp(0, 1))) / 2


def warm_rise(done: Tensor, warmup: Tensor) -> Tensor:
    """Factor [L] that rises from 0 to 1 while `done` [L] goes from 0 to `warmup` [L]."""
    return (done / warmup.clamp_min(1e-12)).clamp_max(1)
