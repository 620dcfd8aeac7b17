"""The squared distance between latents and their codes, the only thing autograd keeps for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _WeightedMeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, moved: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        difference = moved - target
        scale = weight / difference[0].numel()
        ctx.save_for_backward(difference, scale)
        norm = torch.linalg.vector_norm(difference.flatten(1), dim=1)
        distance: Tensor = norm.square_().mul_(scale)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        difference, scale = ctx.saved_tensors
        return difference * (2 * gradients[0] * scale)[:, None, None], None, None


def squared_distance(
    moved: Tensor, target: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Weigh a mean square: weight * mean of (moved - sg(target))^2 over all but lanes: [L].

    The gradient reaches `moved` only. One large kernel forward and one backward do what autograd
    would do in seven.

    Args:
        moved: [L, N, d].
        target: [L, N, d].
        weight: [L].
        mask: bool [L, N], latents that count; all where None.
    """
    if mask is not None:
        share = mask.to(weight.dtype).mean(1)
        # Of no latents at all the mean is 0.
        weight = weight / share.clamp_min(1 / mask.shape[1])
        moved, target = (x.masked_fill(~mask.unsqueeze(-1), 0) for x in (moved, target))
    distance: Tensor = _WeightedMeanSquare.apply(moved, target, weight)  # type: ignore[no-untyped-call]
    return distance
