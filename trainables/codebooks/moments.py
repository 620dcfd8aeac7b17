"""Mean and variance of the latents that count."""

from __future__ import annotations

import torch
from torch import Tensor


def moments(z: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance [L, d] of the latents [L, N, d] that count."""
    if mask is None:
        variance, mean = torch.var_mean(z, 1, correction=0)
        return mean, variance
    weights = mask.to(z.dtype).unsqueeze(-1)
    total = weights.sum(1).clamp_min(1)
    mean = (z * weights).sum(1) / total
    variance = ((z - mean.unsqueeze(1)).square() * weights).sum(1) / total
    return mean, variance
