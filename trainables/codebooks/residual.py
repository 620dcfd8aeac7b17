"""Residual codebooks: each level quantizes what the levels before it left over."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from trainables import noise
from trainables.codebooks.technique import Clock

_SALT = 808


def levels_used_on_host(levels: int, dropout: float, seed: int, step: int) -> int:
    """What `levels_used` gives for one lane, without a device: so that no level is run in vain."""
    key = noise.fold_on_host(noise.fold_on_host(seed, _SALT), step)
    chance, share = noise.uniform_on_host(key, 2)
    if chance >= dropout:
        return levels
    return 1 + min(int(np.float32(share) * levels), levels - 1)  # single precision, as there


def levels_used(levels: int, dropout: Tensor, clock: Clock) -> Tensor:
    """Quantizer dropout: how many of the first levels this step uses, int64 [L].

    With chance `dropout` [L] a number drawn evenly from 1 to `levels`, otherwise all; one draw a
    step, as in EnCodec (Defossez et al. 2022, section 3.2), so that any prefix of the levels
    decodes (SoundStream, Zeghidour et al. 2021, section III.C).
    """
    key = noise.fold(noise.fold(clock.seed, _SALT), clock.step)
    chance, share = noise.uniform(key, (2,)).unbind(-1)
    drawn = 1 + (share * levels).long().clamp_max(levels - 1)
    return drawn.where(chance < dropout, levels)
