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
        grid = implied_codebook(self.levels)
        levels = torch.tensor(self.levels, dtype=torch.float64)
        half = (levels - 1) * (1 + _MARGIN) / 2
        offset = (levels % 2 == 0).double() / 2
        width = _half_width(levels)
        each = {
            "codebook": grid,
            "fsq_shift": torch.atanh(offset / half),
            "fsq_scale": half / width,
            "fsq_start": -offset / width,
            "fsq_width": width,
            "fsq_most": levels - 1,
            "fsq_places": torch.tensor(_places(self.levels)),
        }
        return {
            name: value.to(shape.device, shape.dtype).expand(shape.lanes, *value.shape).contiguous()
            for name, value in each.items()
        }

    def prepare(self, state: State, z_e: Tensor) -> Tensor:
        """Bound each dimension, with gradient; [-1, 1] from the lowest level to the highest."""
        bounded = torch.tanh(z_e + state["fsq_shift"].unsqueeze(1))
        return torch.addcmul(
            state["fsq_start"].unsqueeze(1), bounded, state["fsq_scale"].unsqueeze(1)
        )

    def choose(self, state: State, look: Look, clock: Clock | None, settings: Settings) -> Tensor:
        """Round; the lowest dimension is the lowest digit of the code."""
        width = state["fsq_width"].unsqueeze(1)
        digits = torch.round(look.z_e * width).add_(width).clamp_min_(0)
        digits = torch.minimum(digits, state["fsq_most"].unsqueeze(1))
        # Floats hold the product of the levels, at most 2^20, exactly.
        return (digits * state["fsq_places"].unsqueeze(1)).sum(-1).long()


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
