"""The contract of what happens to latents on their way into a codebook and out of it.

Transforms belong to the moment of look up. They act on all dimensions of the model's latents,
before these are split into groups or residual levels, in the order normalization, projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trainables.codebooks.technique import Clock, Settings, State
from trainables.config_block import Block, lane_values


class Transform:
    """Base of all transforms: changes nothing."""

    name: str
    # State that the optimiser owns, trained at the model's learning rate.
    trained: tuple[str, ...] = ()

    def __init__(self, config: Any) -> None:
        """Take what fixes shapes from the config block."""

    @classmethod
    def lane_settings(cls, config: Block, samples: int) -> Mapping[str, float]:
        """What may differ between lanes, as for a technique."""
        return lane_values(config)

    def start(self, lanes: int, dim: int, key: Tensor, like: Tensor) -> State:
        """The tensors this transform keeps, under names of its own.

        Args:
            lanes: L.
            dim: of the latents that come in.
            key: int64 [L], to draw from.
            like: a tensor of the device and dtype to use.
        """
        return {}

    def seed(self, state: State, pool: Tensor) -> State:
        """New values of state before training, from latents [L, M, d]."""
        return {}

    def enter(
        self, state: State, z: Tensor, settings: Settings, mask: Tensor | None, fit: bool
    ) -> tuple[Tensor, State]:
        """Latents [L, N, d] to those that the codebook sees, and new values of state.

        Args:
            state: all transforms'.
            z: latents, with gradient.
            settings: this transform's.
            mask: bool [L, N], latents that count; all where None.
            fit: whether statistics are the batch's own, as while training.
        """
        return z, {}

    def leave(self, state: State, z_q: Tensor) -> Tensor:
        """Quantized latents back to those that the decoder gets."""
        return z_q

    def update(self, state: State, clock: Clock, settings: Settings) -> State:
        """New values of state after the optimiser's step."""
        return {}
