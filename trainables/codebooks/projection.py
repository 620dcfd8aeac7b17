"""Trained projections between the model's latents and the dimensions of the lookup."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.technique import Settings, State
from trainables.codebooks.transform import Transform


class Projection(Transform):
    """z <- W_in z_e + b_in into the lookup and z_q <- W_out e + b_out out of it.

    The `factorized` projection of ViT-VQGAN (Yu et al. 2022, section 3.2) and DAC; FSQ and LFQ need
    one where their number of dimensions is not the model's.
    """

    name = "projection"
    trained = ("project_in.weight", "project_in.bias", "project_out.weight", "project_out.bias")

    def __init__(self, inner: int) -> None:
        """Keep the dimension of the lookup."""
        self.inner = inner

    def start(self, lanes: int, dim: int, key: Tensor, like: Tensor) -> State:
        """As torch initialises linear layers, with biases of 0."""
        shapes = {"project_in": (self.inner, dim), "project_out": (dim, self.inner)}
        state = {}
        for salt, (name, shape) in enumerate(shapes.items()):
            draw = noise.uniform(noise.fold(key, 1010 + salt), shape).to(like)
            state[f"{name}.weight"] = (2 * draw - 1) / math.sqrt(shape[1])
            state[f"{name}.bias"] = like.new_zeros(lanes, shape[0])
        return state

    def enter(
        self, state: State, z: Tensor, settings: Settings, mask: Tensor | None, fit: bool
    ) -> tuple[Tensor, State]:
        """[L, N, d] to [L, N, inner]."""
        return _linear(state, "project_in", z), {}

    def leave(self, state: State, z_q: Tensor) -> Tensor:
        """[L, N, inner] to [L, N, d]."""
        return _linear(state, "project_out", z_q)


def _linear(state: State, name: str, z: Tensor) -> Tensor:
    return torch.baddbmm(state[f"{name}.bias"].unsqueeze(1), z, state[f"{name}.weight"].mT)
