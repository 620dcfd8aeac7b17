"""Means and variances over the latents that count."""

from __future__ import annotations

import torch
from torch import Tensor


def mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean [L, ...] of values [L, N, ...] over the latents that count, bool [L, N]; all if None."""
    if mask is None:
        return values.mean(1)
    weights = mask.to(values.dtype).view(*mask.shape, *[1] * (values.dim() - 2))
    return (values * weights).sum(1) / weights.sum(1).clamp_min(1)


def moments(z: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance [L, d] of the latents [L, N, d] that count."""
    if mask is None:
        variance, middle = torch.var_mean(z, 1, correction=0)
        return middle, variance
    middle = mean(z, mask)
    return middle, mean((z - middle.unsqueeze(1)).square(), mask)
