"""Finite scalar quantization: each dimension is rounded to a few levels, no code is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.codebooks.technique import (
    Clock,
    Look,
    Settings,
    Shape,
    State,
    Technique,
)
from trainables.config_codebook import FsqUpdate

# Keeps the outermost levels within reach of tanh.
_MARGIN = 1e-3


class Fsq(Technique):
    """z_i <- round(f(z_i)), f(z) = h tanh(z + s) - o, with L_i levels in dimension i.

    Mentzer et al. 2023 ("Finite Scalar Quantization: VQ-VAE Made Simple", section 3.1 and
    appendix A.1); o is one half for an even L_i, and s makes f(0) = 0. Codes are scaled to [-1, 1].
    Nothing can collapse: a control for all that can.
    """

    name = "update"

    def __init__(self, config: FsqUpdate) -> None:
        """Keep the levels."""
        self.levels = config.levels

    def start(self, shape: Shape, key: Tensor) -> State:
        """The implied codebook, the same in every lane."""
        grid = implied_codebook(self.levels).to(shape.device, shape.dtype)
        levels = torch.tensor(self.levels, device=shape.device)
        places = torch.tensor(_places(self.levels), device=shape.device)
        return {
            "codebook": grid.repeat(shape.lanes, 1, 1),
            "fsq_levels": levels.repeat(shape.lanes, 1),
            "fsq_places": places.repeat(shape.lanes, 1),
        }

    def prepare(self, state: State, z_e: Tensor) -> Tensor:
        """Bound each dimension, with gradient; [-1, 1] from the lowest level to the highest."""
        levels = state["fsq_levels"].unsqueeze(1).to(z_e.dtype)
        half = (levels - 1) * (1 + _MARGIN) / 2
        offset = (levels % 2 == 0).to(z_e.dtype) / 2
        bounded = torch.tanh(z_e + torch.atanh(offset / half)) * half - offset
        return bounded / _half_width(levels)

    def choose(self, state: State, look: Look, clock: Clock | None, settings: Settings) -> Tensor:
        """Round; the lowest dimension is the lowest digit of the code."""
        levels = state["fsq_levels"].unsqueeze(1)
        half = _half_width(levels)
        digits = (torch.round(look.z_e * half) + half).long().clamp_min(0)
        digits = torch.minimum(digits, levels - 1)
        return (digits * state["fsq_places"].unsqueeze(1)).sum(-1)


def implied_codebook(levels: Sequence[int]) -> Tensor:
    """All codes in their order, [prod(levels), len(levels)], scaled to [-1, 1]."""
    index = torch.arange(math.prod(levels)).unsqueeze(-1)
    digits = index // torch.tensor(_places(levels)) % torch.tensor(levels)
    half = _half_width(torch.tensor(levels))
    return (digits - half) / half


def _half_width(levels: Tensor) -> Tensor:
    return torch.div(levels, 2, rounding_mode="floor")


def _places(levels: Sequence[int]) -> list[int]:
    return [math.prod(levels[:i]) for i in range(len(levels))]
