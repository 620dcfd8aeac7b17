"""k-means seeding: the codes start where the encoder's outputs are."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.nearest import nearest_codes
from trainables.codebooks.technique import Replacement, State, Technique
from trainables.config_codebook import KMeans as KMeansConfig


class KMeans(Technique):
    """k-means++ (Arthur & Vassilvitskii 2007) and Lloyd iterations over a pool of latents.

    The pool spans many batches, since one batch covers too few modes; seeding by distance finds
    the modes that uniform seeding misses.
    """

    name = "kmeans"

    def __init__(self, config: KMeansConfig) -> None:
        """Keep the number of Lloyd iterations."""
        self.iterations = config.iterations

    def seed(self, state: State, pool: Tensor, key: Tensor) -> Replacement:
        """Centres of the pool for every usable code."""
        codebook = state["codebook"]
        usable = state.get("usable")
        mask = torch.ones_like(codebook[..., 0], dtype=torch.bool) if usable is None else usable
        # Growth makes the first codes usable, the same number in every lane of a stack.
        count = codebook.shape[1] if usable is None else int(usable[0].sum())
        centres = lloyd(pool, plus_plus(pool, count, key), self.iterations)
        vectors = codebook.clone()
        vectors[:, :count] = centres
        return Replacement(mask, vectors)


def plus_plus(pool: Tensor, count: int, key: Tensor) -> Tensor:
    """Centres [L, count, d], each drawn with chance proportional to the squared distance.

    Args:
        pool: latents [L, M, d].
        count: number of centres.
        key: int64 [L].
    """
    chance = noise.uniform(noise.fold(key, 303), (count,)).to(pool.dtype)
    lanes = torch.arange(pool.shape[0], device=pool.device)
    first = (chance[:, 0] * pool.shape[1]).long()
    centre = pool[lanes, first]
    centres = [centre]
    distance = pool.new_full(pool.shape[:2], torch.inf)
    for i in range(1, count):
        new = (pool - centre.unsqueeze(1)).square().sum(-1)
        distance = torch.minimum(distance, new)
        total = distance.cumsum(-1, dtype=torch.float64)
        # Where every latent is a centre already the total is 0 and the last one is taken again.
        goal = (chance[:, i] * total[:, -1]).unsqueeze(-1)
        pick = torch.searchsorted(total, goal, right=True).squeeze(-1)
        centre = pool[lanes, pick.clamp_max(pool.shape[1] - 1)]
        centres.append(centre)
    return torch.stack(centres, dim=1)


def lloyd(pool: Tensor, centres: Tensor, iterations: int) -> Tensor:
    """Lloyd's iterations from centres [L, k, d]; an empty cluster keeps its centre."""
    lanes, size, dim = centres.shape
    for _ in range(iterations):
        codes = nearest_codes(pool, centres)
        index = codes.unsqueeze(-1).expand(-1, -1, dim)
        sums = torch.zeros_like(centres).scatter_add_(1, index, pool)
        counts = pool.new_zeros(lanes, size).scatter_add_(1, codes, torch.ones_like(pool[..., 0]))
        means = sums / counts.clamp_min(1).unsqueeze(-1)
        centres = means.where((counts > 0).unsqueeze(-1), centres)
    return centres
