"""Rotation trick: the gradient goes back through the rotation that maps a latent to its code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainables.codebooks.technique import Settings, State, Step, Technique

# Latents and codes shorter than this have no direction to rotate.
_LEAST_NORM = 1e-6


class RotationTrick(torch.autograd.Function):
    """The codes' vectors forward; backward the transpose of s R, held constant.

    q = s R z with s = |q| / |z| and R = I - 2 r r^T + 2 q^ z^^T, r the unit vector along z^ + q^
    (Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick", section 4.2),
    so that dL/dz = s (g - 2 r (r . g) + 2 z^ (q^ . g)).
    """

    @staticmethod
    def forward(ctx: Any, z_e: Tensor, chosen: Tensor) -> Tensor:
        """Pass on `chosen` [L, N, d], of the shape of z_e."""
        ctx.save_for_backward(z_e, chosen)
        return chosen.detach().view_as(chosen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Rotate and scale the gradient back; where there is nothing to rotate, pass it."""
        (g,) = gradients
        z, q = ctx.saved_tensors
        z_norm, q_norm = (
            torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(_LEAST_NORM) for x in (z, q)
        )
        z_unit, q_unit = z / z_norm, q / q_norm
        between = z_unit + q_unit
        length = torch.linalg.vector_norm(between, dim=-1, keepdim=True)
        r = between / length.clamp_min(_LEAST_NORM)
        along_r = (r * g).sum(-1, keepdim=True)
        along_q = (q_unit * g).sum(-1, keepdim=True)
        rotated = (g - 2 * r * along_r + 2 * z_unit * along_q) * (q_norm / z_norm)
        turns = (length > _LEAST_NORM) & (z_norm > _LEAST_NORM) & (q_norm > _LEAST_NORM)
        return torch.where(turns, rotated, g), None


class Rotation(Technique):
    """Replaces the straight-through estimator."""

    name = "rotation"

    def estimate(self, state: State, step: Step, settings: Settings) -> Tensor:
        """The codes' vectors, with the rotated gradient."""
        z_q: Tensor = RotationTrick.apply(step.z_e, step.chosen)  # type: ignore[no-untyped-call]
        return z_q
