"""Cosine codebook: latents and codes are unit vectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainables.codebooks.technique import Settings, State, Step, Technique


class Cosine(Technique):
    """z <- z / ||z||, and e <- e / ||e|| after every update (ViT-VQGAN, Yu et al. 2022, 3.2).

    The nearest code is then the one of largest cosine similarity. The gradient goes through the
    normalisation, so the encoder's lengths do not matter.
    """

    name = "cosine"

    def prepare(self, state: State, z_e: Tensor) -> Tensor:
        """Latents on the sphere."""
        return F.normalize(z_e, dim=-1)

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """Bring the codes back to the sphere."""
        return {"codebook": F.normalize(state["codebook"], dim=-1)}

    def settle(self, vectors: Tensor) -> Tensor:
        """Codes set anew, too."""
        return F.normalize(vectors, dim=-1)
