"""Residual codebooks: each level quantizes what the levels before it left over."""

from __future__ import annotations

from torch import Tensor

from trainables import noise
from trainables.codebooks.technique import Clock


def levels_used(levels: int, dropout: Tensor, clock: Clock) -> Tensor:
    """Quantizer dropout: how many of the first levels this step uses, int64 [L].

    With chance `dropout` [L] a number drawn evenly from 1 to `levels`, otherwise all; one draw a
    step, as in EnCodec (Defossez et al. 2022, section 3.2), so that any prefix of the levels
    decodes (SoundStream, Zeghidour et al. 2021, section III.C).
    """
    key = noise.fold(noise.fold(clock.seed, 808), clock.step)
    chance, share = noise.uniform(key, (2,)).unbind(-1)
    drawn = 1 + (share * levels).long().clamp_max(levels - 1)
    return drawn.where(chance < dropout, levels)
