"""Low-dimensional lookup: l2-normalised distance in a few dimensions behind a projection."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainables.codebooks.technique import Technique


class LowDim(Technique):
    """i = argmin ||l2(z) - l2(e_i)|| with z = W_in z_e of few dimensions, and z_q = W_out e_i.

    The factorized and l2-normalised codes of ViT-VQGAN (Yu et al. 2022, section 3.2), as in the
    Descript audio codec (Kumar et al. 2023, section 3.2), where codes and losses keep their
    lengths and only the lookup is normalised. The projections are `projection.Projection`.
    """

    name = "low_dim"

    def view(self, x: Tensor) -> Tensor:
        """Unit vectors."""
        return F.normalize(x, dim=-1)
