"""Soft assignment of latents to codes, the basis of the entropy terms."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.codebooks.technique import State, Step


def soft_assignment(state: State, step: Step, temperature: Tensor) -> Tensor:
    """softmax(-||z_e - e||^2 / (temperature * s)) over the usable codes: [L, N, K], with gradient.

    s is the step's mean squared distance to the nearest code, so that the temperature [L] does not
    depend on the scale of the latents.
    """
    codebook = state["codebook"]
    scale = (step.z_e - step.chosen).detach().square().sum(-1).mean(-1)
    softness = (temperature * scale).clamp_min(1e-12)[:, None, None]
    norms = codebook.square().sum(-1).unsqueeze(1)
    # ||z||^2 is the same for all codes of a latent and drops out of the softmax.
    logits = (2.0 * step.z_e @ codebook.mT - norms) / softness
    usable = state.get("usable")
    if usable is not None:
        logits = logits.masked_fill(~usable.unsqueeze(1), -torch.inf)
    return logits.softmax(-1)


def entropy_of(p: Tensor) -> Tensor:
    """Entropy in nats over the last axis; 0 log 0 is 0, with a gradient that stays finite."""
    return -torch.xlogy(p, p.clamp_min(torch.finfo(p.dtype).tiny)).sum(-1)
