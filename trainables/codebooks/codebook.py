"""A codebook: its state and a list of techniques that run in one order at five moments."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.commitment import Commitment
from trainables.codebooks.ema import Ema
from trainables.codebooks.entropy import Entropy
from trainables.codebooks.gradient import Gradient
from trainables.codebooks.growth import Growth
from trainables.codebooks.kmeans import KMeans
from trainables.codebooks.least_recent import LeastRecent
from trainables.codebooks.nearest import nearest_codes
from trainables.codebooks.reanchor import Reanchor
from trainables.codebooks.respawn import Respawn
from trainables.codebooks.rotation import Rotation
from trainables.codebooks.sample_entropy import SampleEntropy
from trainables.codebooks.straight_through import straight_through
from trainables.codebooks.technique import (
    Clock,
    Replacement,
    Shape,
    State,
    Step,
    Technique,
    gather_codes,
)
from trainables.config import TrialConfig
from trainables.config_block import Block
from trainables.config_codebook import CodebookConfig, EmaUpdate, GradientUpdate
from trainables.config_codebook import Commitment as CommitmentConfig
from trainables.config_codebook import Entropy as EntropyConfig
from trainables.config_codebook import Growth as GrowthConfig
from trainables.config_codebook import KMeans as KMeansConfig
from trainables.config_codebook import LeastRecent as LeastRecentConfig
from trainables.config_codebook import Reanchor as ReanchorConfig
from trainables.config_codebook import Respawn as RespawnConfig
from trainables.config_codebook import Rotation as RotationConfig
from trainables.config_codebook import SampleEntropy as SampleEntropyConfig

# In the order in which they act. A new technique is a line here.
TECHNIQUES: dict[type[Block], type[Technique]] = {
    RotationConfig: Rotation,
    GrowthConfig: Growth,
    KMeansConfig: KMeans,
    GradientUpdate: Gradient,
    EmaUpdate: Ema,
    CommitmentConfig: Commitment,
    EntropyConfig: Entropy,
    SampleEntropyConfig: SampleEntropy,
    RespawnConfig: Respawn,
    LeastRecentConfig: LeastRecent,
    ReanchorConfig: Reanchor,
}


@dataclass(frozen=True)
class Quantized:
    """What a lookup gives.

    Attributes:
        z_q: quantized latents [L, N, d], straight-through: its gradient goes to z_e as it is.
        codes: int64 [L, N].
        loss: sum of all penalties [L].
        terms: each penalty [L] by technique name, detached.
        step: the record that `after_step` needs.
    """

    z_q: Tensor
    codes: Tensor
    loss: Tensor
    terms: dict[str, Tensor]
    step: Step


class Codebook:
    """State of the codebooks of all lanes, and the techniques that change it."""

    def __init__(self, trials: Sequence[TrialConfig], device: torch.device, dtype: torch.dtype):
        """Set up for trials of one signature, one a lane; codes are drawn from the lanes' seeds."""
        config = trials[0].codebook
        self.size, self.dim = config.size, config.dim
        blocks = {type(block): name for name, block in _blocks(config).items()}
        order = [kind for kind in TECHNIQUES if kind in blocks]
        self.techniques = [TECHNIQUES[kind](getattr(config, blocks[kind])) for kind in order]
        self.trains_codebook = any(t.trains_codebook for t in self.techniques)
        self.host_settings = [
            {
                technique.name: technique.lane_settings(
                    getattr(trial.codebook, blocks[kind]), trial.training
                )
                for technique, kind in zip(self.techniques, order, strict=True)
            }
            for trial in trials
        ]
        self.settings = {
            t.name: {
                key: _lane_tensor([host[t.name][key] for host in self.host_settings], device, dtype)
                for key in self.host_settings[0][t.name]
            }
            for t in self.techniques
        }
        self.seeds = torch.tensor([trial.seed for trial in trials], device=device)
        shape = Shape(len(trials), self.size, self.dim, device, dtype)
        # Uniform in +-1/K, as common PyTorch VQ-VAEs have it (bshall/ZeroSpeech); the first one,
        # in Sonnet, drew from a wider range and collapses a little less.
        draw = noise.uniform(noise.fold(self.seeds, 404), (self.size, self.dim)).to(dtype)
        self.state: State = {"codebook": (2 * draw - 1) / self.size}
        for technique in self.techniques:
            self.state |= technique.start(shape)
        everything = torch.ones(shape.lanes, self.size, dtype=torch.bool, device=device)
        self._replace(Replacement(everything, self.state["codebook"]))

    def adopt(self, codebook: Tensor) -> None:
        """Make a parameter [L, K, d] the codebook; from now on it is changed in place."""
        self.state["codebook"] = codebook

    @property
    def usable(self) -> Tensor | None:
        """Codes that may be chosen, bool [L, K]; None for all."""
        for technique in self.techniques:
            usable = technique.usable(self.state)
            if usable is not None:
                return usable
        return None

    @torch.no_grad()
    def seed(self, pool: Tensor) -> None:
        """Let techniques seed the codes from latents [L, M, d] before training."""
        for technique in self.techniques:
            replacement = technique.seed(self.state, pool, self.seeds)
            if replacement is not None:
                self._replace(replacement)

    def look_up(self, z_e: Tensor) -> Tensor:
        """Codes int64 [L, N] of latents [L, N, d]."""
        return nearest_codes(z_e, self.state["codebook"], self.usable)

    def embed(self, codes: Tensor) -> Tensor:
        """Vectors [L, N, d] of codes int64 [L, N]."""
        return gather_codes(self.state["codebook"], codes)

    def quantize(self, z_e: Tensor, clock: Clock) -> Quantized:
        """Look up latents [L, N, d] and penalise them; gradients reach encoder and codes."""
        codes = self.look_up(z_e.detach())
        chosen = self.embed(codes)
        step = Step(z_e, codes, chosen, clock, self.size)
        terms: dict[str, Tensor] = {}
        for technique in self.techniques:
            term = technique.penalise(self.state, step, self.settings[technique.name])
            if term is not None:
                terms[technique.name] = term
        loss = functools.reduce(operator.add, terms.values())
        estimates = (t.estimate(self.state, step, self.settings[t.name]) for t in self.techniques)
        z_q = next((z_q for z_q in estimates if z_q is not None), None)
        if z_q is None:
            z_q = straight_through(z_e, chosen)
        return Quantized(z_q, codes, loss, {k: v.detach() for k, v in terms.items()}, step)

    @torch.no_grad()
    def after_step(self, step: Step, before: Sequence[int], after: Sequence[int]) -> None:
        """Update and maintain after the optimiser's step.

        Args:
            step: the record of `quantize`.
            before: samples drawn by each lane before the step, known to the host.
            after: the same after the step.
        """
        done = Step(step.z_e.detach(), step.codes, step.chosen.detach(), step.clock, self.size)
        for technique in self.techniques:
            self._set(technique.update(self.state, done, self.settings[technique.name]))
        for technique in self.techniques:
            if not self._due(technique, before, after):
                continue
            new, replacement = technique.maintain(self.state, done, self.settings[technique.name])
            self._set(new)
            if replacement is not None:
                self._replace(replacement)

    def _due(self, technique: Technique, before: Sequence[int], after: Sequence[int]) -> bool:
        return any(
            technique.due(host[technique.name], b, a)
            for host, b, a in zip(self.host_settings, before, after, strict=True)
        )

    def _replace(self, replacement: Replacement) -> None:
        mask = replacement.mask.unsqueeze(-1)
        self._set({"codebook": replacement.vectors.where(mask, self.state["codebook"])})
        for technique in self.techniques:
            self._set(technique.replaced(self.state, replacement))

    def _set(self, new: State) -> None:
        for name, value in new.items():
            if name == "codebook" and self.state[name].requires_grad:
                self.state[name].copy_(value)
            else:
                self.state[name] = value


def _blocks(config: CodebookConfig) -> dict[str, Block]:
    named = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: block for name, block in named.items() if isinstance(block, Block)}


def _lane_tensor(values: list[float], device: torch.device, dtype: torch.dtype) -> Tensor:
    whole = all(isinstance(value, int) for value in values)
    return torch.tensor(values, dtype=torch.int64 if whole else dtype, device=device)
