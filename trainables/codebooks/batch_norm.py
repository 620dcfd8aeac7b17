"""Batch normalisation of the latents before the lookup."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.codebooks.moments import moments
from trainables.codebooks.technique import Settings, State
from trainables.codebooks.transform import Transform

EPSILON = 1e-5


class BatchNorm(Transform):
    """z <- (z - mean) / sqrt(var + eps), dimension by dimension over all latents of the step.

    Ioffe & Szegedy 2015, algorithm 1, before the quantizer as in Lancucki et al. 2020 ("Robust
    Training of Vector Quantized Bottleneck Models", section 3.2), without a learned scale: the
    codes then always find latents of unit variance. Evaluation takes the running statistics.
    """

    name = "normalization"

    def start(self, lanes: int, dim: int, key: Tensor, like: Tensor) -> State:
        """Mean 0 and variance 1."""
        zeros = like.new_zeros(lanes, dim)
        return {"norm_mean": zeros, "norm_variance": zeros + 1}

    def seed(self, state: State, pool: Tensor) -> State:
        """The pool's own statistics: it tells more than a step."""
        mean, variance = moments(pool, None)
        return {"norm_mean": mean, "norm_variance": variance}

    def enter(
        self, state: State, z: Tensor, settings: Settings, mask: Tensor | None, fit: bool
    ) -> tuple[Tensor, State]:
        """Standardise by the batch while training, by the running statistics otherwise."""
        if not fit:
            mean, variance = state["norm_mean"], state["norm_variance"]
            return (z - mean.unsqueeze(1)) * (variance + EPSILON).rsqrt().unsqueeze(1), {}
        mean, variance = moments(z, mask)
        normal = (z - mean.unsqueeze(1)) * (variance + EPSILON).rsqrt().unsqueeze(1)
        momentum = settings["momentum"].unsqueeze(-1)
        if mask is not None:
            momentum = momentum * mask.any(-1, keepdim=True)
        running = {
            "norm_mean": torch.lerp(state["norm_mean"], mean.detach(), momentum),
            "norm_variance": torch.lerp(state["norm_variance"], variance.detach(), momentum),
        }
        return normal, running
