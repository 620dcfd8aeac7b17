"""Residual codebooks: each level quantizes what the levels before it left over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.codebook import Assigned, Codebook
from trainables.codebooks.technique import Clock, Step

_SALT = 808


def quantize_chain(
    codebooks: Sequence[Codebook],
    z: Tensor,
    clock: Clock,
    mask: Tensor | None,
    dropout: Dropout | None,
    most: int | None = None,
) -> tuple[list[Assigned], Step]:
    """Quantize level by level: what each gives, and the step of their sum for the decoder.

    q_i = Q_i(z - q_1 - ... - q_(i-1)), z_q = q_1 + ... + q_n (SoundStream, Zeghidour et al. 2021,
    algorithm 1). Every level's penalties reach the encoder; the decoder's gradient passes once.

    Args:
        codebooks: one a level, of L lanes.
        z: latents [L, N, d], with gradient.
        clock: where each lane stands, groups not repeated.
        mask: bool [L, N], latents that count; all where None.
        dropout: which levels a step uses; all where None.
        most: the most levels that a lane uses in this step, where the host knows; the others are
            passed over.
    """
    used = None
    if dropout is not None:
        used = levels_used(dropout.levels, dropout.chances, clock)
        used = used.repeat_interleave(z.shape[0] // used.shape[0])
    rest, total, assigned = z, torch.zeros_like(z), []
    for level, book in enumerate(codebooks):
        now = clock.for_lanes(book.seeds)
        if most is not None and level >= most:
            assigned.append(book.pass_over(rest.detach(), now))
            continue
        if used is None or level == 0:
            one = book.assign(rest, now, mask)
            chosen = one.step.chosen.detach()
        else:
            on = used > level
            kept = on.unsqueeze(-1) if mask is None else mask & on.unsqueeze(-1)
            one = _dropped(book.assign(rest, now, kept.expand(z.shape[:2])), on)
            chosen = one.step.chosen.detach() * on[:, None, None]
        assigned.append(one)
        rest, total = rest - chosen, total + chosen
    return assigned, replace(assigned[0].step, z_e=z, chosen=total)


class Dropout:
    """Quantizer dropout: a step may use only some of the first levels.

    Args:
        levels: in the chain.
        chances: of a step that drops levels, [L].
        seeds: int64 [L].
    """

    def __init__(self, levels: int, chances: Tensor, seeds: Tensor) -> None:
        """Keep what the device and the host need."""
        self.levels, self.chances = levels, chances
        # The host's are as rounded as the device's.
        self._lanes = list(zip(self.chances.tolist(), seeds.tolist(), strict=True))

    def most(self, steps: Sequence[int]) -> int:
        """The most levels that a lane uses in the step of this number in each lane."""
        lanes = zip(self._lanes, steps, strict=True)
        return max(levels_used_on_host(self.levels, p, seed, n) for (p, seed), n in lanes)


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


def _dropped(one: Assigned, on: Tensor) -> Assigned:
    """Loss and terms without the lanes that did not use this level; bool `on` [L]."""
    terms = {name: term * on for name, term in one.terms.items()}
    return Assigned(one.step, one.loss * on, terms)
