"""Re-anchoring: codes move towards latents the less they are used, in every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.technique import (
    Replacement,
    Settings,
    Shape,
    State,
    Step,
    Technique,
    gather_codes,
)

# Shares below this move a code by less than the noise of a step.
_LEAST_SHARE = 1e-3


class Reanchor(Technique):
    """e_k <- (1 - a_k) e_k + a_k z_k, a_k = exp(-10 K U_k / (1 - decay) - 1e-3).

    U_k is the running share of latents that chose code k, and z_k a latent of the step (CVQ-VAE,
    Zheng & Vedaldi 2023, eq. 4 to 6). Of the paper's anchors these are the random ones, all
    different: many dead codes have the same closest latent, and ties keep all but one of them dead.
    """

    name = "reanchor"

    def start(self, shape: Shape, key: Tensor) -> State:
        """Running shares, from an even use."""
        return {"reanchor_use": shape.zeros(shape.size) + 1 / shape.size}

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """Average the shares."""
        share = step.counts / step.counts.sum(-1, keepdim=True).clamp_min(1)
        decay = settings["decay"].unsqueeze(-1)
        return {"reanchor_use": torch.lerp(share, state["reanchor_use"], decay)}

    def due(self, host: Mapping[str, float], before: int, after: int) -> bool:
        """Every step."""
        return True

    def maintain(
        self, state: State, step: Step, settings: Settings
    ) -> tuple[State, Replacement | None]:
        """Move the little-used codes."""
        key = noise.fold(noise.fold(step.clock.seed, 606), step.clock.step)
        codebook, use = state["codebook"].detach(), state["reanchor_use"]
        rate = 10 * step.size / (1 - settings["decay"].unsqueeze(-1))
        share = torch.exp(-use * rate - 1e-3).unsqueeze(-1)
        chance, count = noise.uniform(key, (step.z_e.shape[1],)), step.z_e.shape[1]
        place = torch.arange(step.size, device=chance.device) % count
        if step.mask is not None:
            chance = chance + ~step.mask  # those that do not count come last
            place = place % step.mask.sum(-1, keepdim=True).clamp_min(1)
        order = chance.argsort(dim=-1, stable=True)
        pick = order.gather(1, place.expand(order.shape[0], -1))
        anchors = gather_codes(step.z_e, pick)
        mask = share.squeeze(-1) > _LEAST_SHARE
        usable = state.get("usable")
        if usable is not None:
            mask = mask & usable
        if step.mask is not None:
            mask = mask & step.mask.any(-1, keepdim=True)
        return {}, Replacement(mask, torch.lerp(codebook, anchors, share))
