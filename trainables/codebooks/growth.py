"""Growth: train with a few codes, then fill the codebook with jittered copies of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.technique import Replacement, Settings, Shape, State, Step, Technique
from trainables.config_block import Block
from trainables.config_codebook import Growth as GrowthConfig


class Growth(Technique):
    """Code k >= start becomes a copy of code k mod start plus noise, once, at a set moment.

    The splitting of LBG vector quantisation (Linde, Buzo & Gray 1980), done in one go.
    """

    name = "growth"

    def __init__(self, config: GrowthConfig) -> None:
        """Keep the number of codes before growth, which fixes who copies whom."""
        self.first = config.start

    @classmethod
    def lane_settings(cls, config: Block, samples: int) -> dict[str, float]:
        """The moment of growth in samples, at least 1."""
        assert isinstance(config, GrowthConfig)
        at = max(1, round(config.at * samples))
        return {"samples_at": at, "jitter": config.jitter}

    def start(self, shape: Shape, key: Tensor) -> State:
        """The first codes are usable, the others wait."""
        first = torch.arange(shape.size, device=shape.device) < self.first
        return {"usable": first.repeat(shape.lanes, 1)}

    def usable(self, state: State) -> Tensor:
        """Codes that exist so far, bool [L, K]."""
        return state["usable"]

    def due(self, host: Mapping[str, float], before: int, after: int) -> bool:
        """Only in the step that reaches the moment of growth."""
        return before < host["samples_at"] <= after

    def maintain(
        self, state: State, step: Step, settings: Settings
    ) -> tuple[State, Replacement | None]:
        """Copy and jitter in the lanes whose moment has come."""
        codebook = state["codebook"]
        size = codebook.shape[1]
        grows = step.clock.passed(settings["samples_at"])
        parents = torch.arange(size, device=codebook.device) % self.first
        key = noise.fold(noise.fold(step.clock.seed, 101), step.clock.step)
        jitter = noise.normal(key, codebook.shape[1:]).to(codebook.dtype)
        magnitude = codebook[:, : self.first].square().mean((1, 2)).sqrt()
        scale = (settings["jitter"] * magnitude)[:, None, None]
        mask = grows.unsqueeze(-1) & ~state["usable"]
        vectors = codebook[:, parents] + scale * jitter
        return {"usable": state["usable"] | grows.unsqueeze(-1)}, Replacement(mask, vectors)
