"""Estimators: what the decoder gets, and how its gradient reaches the encoder past the lookup."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StraightThrough(torch.autograd.Function):
    """The codes' vectors forward, the gradient unchanged backward (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, z_e: Tensor, chosen: Tensor) -> Tensor:
        """Pass on `chosen`, of the shape of z_e."""
        return chosen.detach().view_as(chosen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Give all of the gradient to z_e."""
        return gradients[0], None


def straight_through(z_e: Tensor, chosen: Tensor) -> Tensor:
    """z_e + sg(chosen - z_e), without its rounding or its arithmetic."""
    z_q: Tensor = StraightThrough.apply(z_e, chosen)  # type: ignore[no-untyped-call]
    return z_q
