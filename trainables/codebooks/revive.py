"""Setting dead codes to latents, none of them twice: what every kind of respawn ends in."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.moments import moments
from trainables.codebooks.technique import Replacement


def revive(
    dead: Tensor, pool: Tensor, allowed: Tensor | None, jitter: Tensor, key: Tensor
) -> Replacement:
    """Give each dead code a random latent of its own, plus a little noise.

    With a tie between two codes the lower one would take every latent. Where there are more dead
    codes than latents, the rest is left for the next time.

    Args:
        dead: bool [L, K].
        pool: latents [L, M, d].
        allowed: bool [L, M], latents that may be taken; all where None.
        jitter: noise in standard deviations of the pool, [L].
        key: int64 [L].
    """
    lanes, count, dim = pool.shape
    chance = noise.uniform(key, (count,))
    if allowed is None:
        valid = torch.full((lanes,), count, device=pool.device)
    else:
        valid = allowed.sum(-1)
        chance = chance + ~allowed
    order = chance.argsort(dim=-1, stable=True)
    rank = dead.cumsum(-1) - 1
    pick = order.gather(1, rank.clamp(0, count - 1))
    chosen = pool.gather(1, pick.unsqueeze(-1).expand(-1, -1, dim))
    spread = moments(pool, allowed)[1].mean(-1).sqrt()
    scale = (jitter * spread)[:, None, None]
    jittered = chosen + scale * noise.normal(noise.fold(key, 1), chosen.shape[1:]).to(chosen.dtype)
    return Replacement(dead & (rank < valid.unsqueeze(-1)), jittered)
