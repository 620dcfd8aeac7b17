"""Adam (Kingma & Ba 2015, algorithm 1) for a stack: one flat buffer, a learning rate per lane.

About ten kernels a step whatever the depth of the model, and a step count per lane, so that a lane
resumed or added later has its own bias correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class LaneAdam:
    """Holds the parameters {name: [L, ...]}, their moments and the step count of each lane.

    The flat buffer is laid out parameter by parameter, so that every parameter is contiguous and a
    grouped convolution takes all lanes of it without a copy.
    """

    def __init__(self, initial: Mapping[str, Tensor], lr: Tensor) -> None:
        """Take copies of `initial` and learning rates [L]."""
        self.lr = lr
        lanes = lr.shape[0]
        values = [value.detach().reshape(-1) for value in initial.values()]
        self.flat = torch.cat(values)
        self.mean = torch.zeros_like(self.flat)
        self.square = torch.zeros_like(self.flat)
        self.steps = torch.zeros_like(lr)
        self.parameters = _views(self.flat, initial)
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        self._lane_of = (
            torch.cat(
                [
                    torch.arange(lanes, device=lr.device).repeat_interleave(value.numel() // lanes)
                    for value in values
                ]
            )
            if lanes > 1
            else None
        )

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """First and second moments as views shaped like the parameters."""
        return {
            "mean": _views(self.mean, self.parameters),
            "square": _views(self.square, self.parameters),
        }

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], factor: Tensor | None = None) -> None:
        """Update in place from gradients in the order of `parameters`.

        Args:
            gradients: shaped like the parameters.
            factor: on the learning rates in this step, [L].
        """
        gradient = torch.cat([g.reshape(-1) for g in gradients])
        self.steps += 1
        correction = torch.sqrt(1 - BETA_2**self.steps)
        lr = self.lr if factor is None else self.lr * factor
        rate = self._spread(lr * correction / (1 - BETA_1**self.steps))
        epsilon = self._spread(EPSILON * correction)
        self.mean.lerp_(gradient, 1 - BETA_1)
        self.square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        torch.sqrt(self.square, out=gradient)
        gradient.add_(epsilon)
        torch.div(self.mean, gradient, out=gradient)
        self.flat.sub_(gradient.mul_(rate))

    def _spread(self, per_lane: Tensor) -> Tensor:
        return per_lane if self._lane_of is None else per_lane[self._lane_of]


def _views(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    views, start = {}, 0
    for name, value in like.items():
        views[name] = flat[start : start + value.numel()].view(value.shape)
        start += value.numel()
    return views
