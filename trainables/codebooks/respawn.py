"""Respawn: dead codes are set to recent latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.revive import revive
from trainables.codebooks.technique import (
    Replacement,
    Settings,
    Shape,
    State,
    Step,
    Technique,
    gather_codes,
)
from trainables.config_codebook import Respawn as RespawnConfig


class Respawn(Technique):
    """Every `period` samples, codes used less than tau * mean use become random recent latents.

    Random restarts of Jukebox (Dhariwal et al. 2020, section 3.1). The threshold is relative to
    the mean use N/K, since an absolute one depends on the batch. No two dead codes get the same
    latent: with a tie between codes the lower one would take all. Where there are more dead codes
    than latents, the rest waits for the next respawn.
    """

    name = "respawn"

    def __init__(self, config: RespawnConfig) -> None:
        """Keep the size of the buffer, which fixes the state."""
        self.buffer = config.buffer

    def start(self, shape: Shape, key: Tensor) -> State:
        """Use of each code since the last respawn, and the ring of recent latents."""
        state = {"respawn_use": shape.zeros(shape.size)}
        if self.buffer:
            state["respawn_ring"] = shape.zeros(self.buffer, shape.dim)
            state["respawn_known"] = shape.zeros(self.buffer).bool()
            state["respawn_seen"] = shape.zeros().long()
        return state

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """Count use; put the step's latents into the ring."""
        new = {"respawn_use": state["respawn_use"] + step.counts}
        if self.buffer:
            new |= self._remember(state, step)
        return new

    def _remember(self, state: State, step: Step) -> State:
        """The last latents that count take the place of the oldest."""
        ring, known, seen = (state[f"respawn_{name}"] for name in ("ring", "known", "seen"))
        latents, fresh = step.z_e[:, -self.buffer :], None
        if step.mask is not None:
            # Those that do not count go to the front, and fall on slots that stay as they are.
            order = step.mask.long().argsort(dim=1, stable=True)[:, -self.buffer :]
            latents = gather_codes(step.z_e, order)
            fresh = step.mask.gather(1, order)
        count = latents.shape[1]
        end = seen + (count if fresh is None else fresh.sum(-1))
        place = torch.arange(count, device=seen.device) - count
        slots = (end.unsqueeze(-1) + place) % self.buffer
        index = slots.unsqueeze(-1).expand_as(latents)
        if fresh is None:
            known = known.scatter(1, slots, True)
        else:
            latents = latents.where(fresh.unsqueeze(-1), ring.gather(1, index))
            known = known.scatter(1, slots, known.gather(1, slots) | fresh)
        # In place: a copy of the whole ring in every step would cost more than the lookup.
        ring.scatter_(1, index, latents)
        return {"respawn_ring": ring, "respawn_known": known, "respawn_seen": end}

    def due(self, host: Mapping[str, float], before: int, after: int) -> bool:
        """Once every period."""
        period = int(host["period"])
        return after // period > before // period

    def maintain(
        self, state: State, step: Step, settings: Settings
    ) -> tuple[State, Replacement | None]:
        """Set the dead codes of the lanes whose period has ended to distinct latents."""
        use = state["respawn_use"]
        due = step.clock.crossed(settings["period"]).unsqueeze(-1)
        usable = state.get("usable")
        alive = torch.ones_like(use, dtype=torch.bool) if usable is None else usable
        mean = use.sum(-1, keepdim=True) / alive.sum(-1, keepdim=True)
        dead = (use < settings["threshold"].unsqueeze(-1) * mean) & alive & due

        key = noise.fold(noise.fold(step.clock.seed, 202), step.clock.step)
        pool = state["respawn_ring"] if self.buffer else step.z_e
        allowed = state["respawn_known"] if self.buffer else step.mask
        replacement = revive(dead, pool, allowed, settings["jitter"], key)
        return {"respawn_use": use.masked_fill(due, 0)}, replacement

    def replaced(self, state: State, replacement: Replacement) -> State:
        """A code set anew in mid-period starts at the mean use, not as dead."""
        use, kept = state["respawn_use"], ~replacement.mask
        usable = state.get("usable")
        if usable is not None:
            kept = kept & usable
        mean = (use * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp_min(1)
        return {"respawn_use": mean.where(replacement.mask, use)}
