"""Respawn by least-recent use: a code that nothing has chosen for long becomes a latent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.revive import revive
from trainables.codebooks.technique import Replacement, Settings, Shape, State, Step, Technique


class LeastRecent(Technique):
    """Once every `patience` samples, codes unused for at least as long become recent latents.

    The stale-code rule of Lancucki et al. 2020 ("Robust Training of Vector Quantized Bottleneck
    Models") and of Jukebox's restarts, by age instead of rate: a rare code that is still in use
    stays.
    """

    name = "least_recent"

    def start(self, shape: Shape, key: Tensor) -> State:
        """Samples drawn when each code was last chosen."""
        return {"last_use": shape.zeros(shape.size).long()}

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """Note who was chosen."""
        now = step.clock.samples.unsqueeze(-1)
        return {"last_use": torch.where(step.counts > 0, now, state["last_use"])}

    def due(self, host: Mapping[str, float], before: int, after: int) -> bool:
        """Once every patience."""
        patience = int(host["patience"])
        return after // patience > before // patience

    def maintain(
        self, state: State, step: Step, settings: Settings
    ) -> tuple[State, Replacement | None]:
        """Set the codes that have waited too long."""
        patience = settings["patience"]
        idle = step.clock.samples.unsqueeze(-1) - state["last_use"]
        dead = (idle >= patience.unsqueeze(-1)) & step.clock.crossed(patience).unsqueeze(-1)
        usable = state.get("usable")
        if usable is not None:
            dead = dead & usable
        key = noise.fold(noise.fold(step.clock.seed, 505), step.clock.step)
        return {}, revive(dead, step.z_e, step.mask, settings["jitter"], key)

    def replaced(self, state: State, replacement: Replacement) -> State:
        """A code set anew counts as just used."""
        last: Tensor = state["last_use"]
        return {"last_use": torch.where(replacement.mask, last.amax(-1, keepdim=True), last)}
