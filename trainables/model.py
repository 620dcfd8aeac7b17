"""The contract of a model for a stack of lanes: encoder and decoder around maps of latents.

A model is stateless: parameters and buffers come in as {name: [L, ...]}, so that one optimiser
buffer holds all lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Parameters = Mapping[str, Tensor]


class Model(Protocol):
    """Encoder and decoder of a stack, around one or more maps of latents.

    Attributes:
        levels: maps of latents, the coarsest first; each is quantized before the next is made.
    """

    levels: int

    @property
    def unstackable(self) -> str | None:
        """Why the lanes run one at a time, in one line; None where all run in one pass."""
        ...

    def initial(self, seed: int) -> dict[str, Tensor]:
        """Fresh parameters of one lane, without the lane axis, on the CPU in float32."""
        ...

    def buffers(self) -> dict[str, Tensor]:
        """Fresh buffers of one lane (running statistics), changed in place by training."""
        ...

    def train(self, mode: bool) -> None:
        """Switch between training and evaluation."""
        ...

    def draw(self, seeds: Sequence[int]) -> None:
        """Take each lane's seed for whatever the modules themselves draw in the next step."""
        ...

    def encode(self, parameters: Parameters, x: Tensor) -> Sequence[Tensor]:
        """Inputs [L, B, C, ...] to features of each level [L, B, ...]."""
        ...

    def latents(
        self, parameters: Parameters, features: Sequence[Tensor], z_q: Sequence[Tensor]
    ) -> Tensor:
        """Latents [L, B, d, ...] of the next level, given the quantized ones of those before."""
        ...

    def decode(self, parameters: Parameters, z_q: Sequence[Tensor]) -> Tensor:
        """Quantized latents [L, B, d, ...] of all levels to reconstructions [L, B, C, ...]."""
        ...


def latent_shapes(model: Model, example_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The axes of an example's latents after d, level by level: (T',) or (H', W')."""
    parameters, z_q = one_lane(model), list[Tensor]()
    with torch.no_grad():
        features = model.encode(parameters, torch.zeros(1, 2, *example_shape))
        for _ in range(model.levels):
            z_q.append(model.latents(parameters, features, z_q))
    return [tuple(z.shape[3:]) for z in z_q]


def one_lane(model: Model) -> dict[str, Tensor]:
    """Fresh parameters and buffers of a stack of one."""
    values = model.initial(0) | model.buffers()
    return {name: value.unsqueeze(0) for name, value in values.items()}


def to_latents(z: Tensor) -> Tensor:
    """[L, B, d, ...] to [L, N, d], N running over examples and positions."""
    return z.flatten(3).transpose(2, 3).flatten(1, 2)


def from_latents(latents: Tensor, like: Tensor) -> Tensor:
    """[L, N, d] back to the shape of `like` [L, B, d, ...]."""
    lanes, batch, dim = like.shape[:3]
    return latents.reshape(lanes, batch, -1, dim).transpose(2, 3).reshape(like.shape)
