"""Layer normalisation of the latents before the lookup."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainables.codebooks.technique import Settings, State
from trainables.codebooks.transform import Transform


class LayerNorm(Transform):
    """z <- (z - mean) / sqrt(var + eps) over the dimensions of each latent (Ba et al. 2016, eq. 3).

    Without a learned scale, so all latents have the length sqrt(d).
    """

    name = "normalization"

    def enter(
        self, state: State, z: Tensor, settings: Settings, mask: Tensor | None, fit: bool
    ) -> tuple[Tensor, State]:
        """Standardise each latent."""
        return F.layer_norm(z, z.shape[-1:]), {}
