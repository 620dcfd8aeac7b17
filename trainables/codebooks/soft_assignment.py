"""Soft assignment of latents to codes, the basis of the entropy terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainables.codebooks.technique import State, Step


def soft_assignment(state: State, step: Step, temperature: Tensor) -> Tensor:
    """softmax(-||z_e - e||^2 / (temperature * s)) over the usable codes: [L, N, K], with gradient.

    s is the step's mean squared distance to the nearest code, so that the temperature [L] does not
    depend on the scale of the latents. Techniques of one temperature share it.
    """
    return step.once(
        ("soft assignment", id(temperature)), lambda: _soft_assignment(state, step, temperature)
    )


def _soft_assignment(state: State, step: Step, temperature: Tensor) -> Tensor:
    z_e, codebook = step.view(step.z_e), step.view(state["codebook"])
    nearest = step.view(step.chosen).detach()
    scale = step.mean((z_e.detach() - nearest).square().sum(-1))
    return soft_codes(z_e, codebook, temperature * scale, state.get("usable"))


def soft_codes(z_e: Tensor, codebook: Tensor, softness: Tensor, usable: Tensor | None) -> Tensor:
    """softmax(-||z_e - e||^2 / softness) over the usable codes: [L, N, K].

    Args:
        z_e: latents [L, N, d].
        codebook: codes [L, K, d].
        softness: [L].
        usable: bool [L, K]; all where None.
    """
    norms = codebook.square().sum(-1).unsqueeze(1)
    # ||z||^2 is the same for all codes of a latent and drops out of the softmax.
    logits = (2.0 * z_e @ codebook.mT - norms) / softness.clamp_min(1e-12)[:, None, None]
    if usable is not None:
        logits = logits.masked_fill(~usable.unsqueeze(1), -torch.inf)
    return logits.softmax(-1)


class _Entropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log_()
        ctx.save_for_backward(log_p)
        # One dot product a row, without a product as large as p.
        entropy: Tensor = -torch.linalg.vecdot(p, log_p)
        return entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (log_p,) = ctx.saved_tensors
        slope: Tensor = (log_p + 1).mul_(-gradients[0].unsqueeze(-1))
        return slope


def entropy_of(p: Tensor) -> Tensor:
    """Entropy in nats over the last axis; 0 log 0 is 0, with a gradient that stays finite."""
    entropy: Tensor = _Entropy.apply(p)  # type: ignore[no-untyped-call]
    return entropy
