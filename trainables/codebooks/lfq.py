"""Lookup-free quantization: the signs of log2 K dimensions are the bits of the code."""

from __future__ import annotations

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
from trainables.config_codebook import LfqUpdate


class Lfq(Technique):
    """q(z_i) = sign(z_i), code = sum_i 2^i [z_i > 0] (Yu et al. 2023, MAGVIT-v2, eq. 3).

    No code is learned and none can collapse: a control. Its entropy pair is `entropy` with
    `sample_entropy`.
    """

    name = "update"

    def __init__(self, config: LfqUpdate) -> None:
        """Take nothing: the size gives the number of bits."""

    def start(self, shape: Shape, key: Tensor) -> State:
        """The implied codebook: all sign patterns, the same in every lane."""
        index = torch.arange(shape.size, device=shape.device).unsqueeze(-1)
        bits = index >> torch.arange(shape.dim, device=shape.device) & 1
        return {"codebook": (2 * bits - 1).to(shape.dtype).repeat(shape.lanes, 1, 1)}

    def choose(self, state: State, look: Look, clock: Clock | None, settings: Settings) -> Tensor:
        """Read the signs; 0 is negative."""
        bits = torch.arange(look.z_e.shape[-1], device=look.z_e.device)
        return ((look.z_e > 0).long() << bits).sum(-1)
