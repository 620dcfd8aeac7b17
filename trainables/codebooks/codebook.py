"""A codebook: its state and a list of techniques that run in one order at five moments."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.lane_settings import HostSettings, LaneSettings
from trainables.codebooks.menu import TECHNIQUES
from trainables.codebooks.straight_through import straight_through
from trainables.codebooks.sync import ALONE
from trainables.codebooks.technique import (
    Clock,
    Look,
    Replacement,
    Shape,
    State,
    Step,
    Technique,
    as_it_is,
    gather_codes,
)
from trainables.config_block import Block
from trainables.config_codebook import CodebookConfig

# Names of the techniques that could maintain in a step.
Due = tuple[str, ...]


@dataclass(frozen=True)
class Assigned:
    """What a lookup gives.

    Attributes:
        step: latents, codes and vectors, the record that `after_step` needs.
        loss: sum of all penalties [L].
        terms: each penalty [L] by technique name, with gradient.
    """

    step: Step
    loss: Tensor
    terms: dict[str, Tensor]


class Codebook:
    """State of the codebooks of all lanes, and the techniques that change it.

    Args:
        configs: one a lane, alike in all that fixes shapes.
        samples: training.samples of each lane.
        seeds: int64 [L * G], G codebooks a lane (its groups), each with a seed of its own.
        dim: dimension of the codes.
        device: where the state lives.
        dtype: of the state.
    """

    def __init__(
        self,
        configs: Sequence[CodebookConfig],
        samples: Sequence[int],
        seeds: Tensor,
        dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Draw the codes, and let the techniques set up their state."""
        config = configs[0]
        self.size, self.dim, self.seeds, self.sync = config.size, dim, seeds, ALONE
        # Gives the dimensions that codes may have, [L, 1, d] of 0 and 1; all where None.
        self.open_dims: Callable[[], Tensor] | None = None
        blocks = {type(block): name for name, block in _blocks(config).items()}
        order = [kind for kind in TECHNIQUES if kind in blocks]
        self.techniques = [TECHNIQUES[kind](getattr(config, blocks[kind])) for kind in order]
        self._blocks = [blocks[kind] for kind in order]
        self.host_settings = [
            self._host_settings(lane, budget) for lane, budget in zip(configs, samples, strict=True)
        ]
        self.settings = LaneSettings(device, dtype)
        self._penalises: list[Technique] = []
        self._take_settings()
        # Of moments that most techniques leave alone, the ones that do act.
        self._prepares = [t for t in self.techniques if _acts(t, "prepare")]
        self._views = [t for t in self.techniques if _acts(t, "view")]
        self._chooses = [t for t in self.techniques if _acts(t, "choose")]
        self._estimates = [t for t in self.techniques if _acts(t, "estimate")]
        self._makes = [t for t in self.techniques if _acts(t, "codebook")]
        self._settles = [t for t in self.techniques if _acts(t, "settle")]
        self.view = self._views[0].view if self._views else as_it_is
        shape = Shape(len(seeds), self.size, dim, device, dtype)
        # Uniform in +-1/K, as common PyTorch VQ-VAEs have it (bshall/ZeroSpeech); the first one,
        # in Sonnet, drew from a wider range and collapses a little less.
        draw = noise.uniform(noise.fold(self.seeds, 404), (self.size, dim)).to(dtype)
        self.state: State = {"codebook": (2 * draw - 1) / self.size}
        self.trained: list[str] = []
        self._adopted: set[str] = set()
        for technique in self.techniques:
            self.state |= technique.start(shape, self.seeds)
            self.trained += technique.trained
        self._remake()
        self.set_all()

    def set_lane(self, lane: int, config: CodebookConfig, samples: int) -> None:
        """Let another trial have a lane: its settings and, from `seeds`, its draws.

        The state stays: whoever puts the trial there brings it.
        """
        self.host_settings[lane] = self._host_settings(config, samples)
        self._take_settings()

    def set_all(self) -> None:
        """Let every technique know the codes as they are."""
        everything = torch.ones_like(self.state["codebook"][..., 0], dtype=torch.bool)
        self._replace(Replacement(everything, self.state["codebook"].detach()))

    def adopt(self, name: str, parameter: Tensor) -> None:
        """Make a parameter the state of this name; from now on it is changed in place."""
        self.state[name] = parameter
        self._adopted.add(name)

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
        pool = self.prepare(pool)
        for technique in self.techniques:
            replacement = technique.seed(self.state, pool, self.seeds)
            if replacement is not None:
                vectors = self.sync.same(replacement.vectors)
                self._replace(Replacement(replacement.mask, vectors))

    def prepare(self, z_e: Tensor) -> Tensor:
        """Latents [L, N, d] as they are quantized."""
        return functools.reduce(lambda z, t: t.prepare(self.state, z), self._prepares, z_e)

    def look(self, z_e: Tensor, mask: Tensor | None = None) -> Look:
        """What a lookup of prepared latents [L, N, d] compares."""
        codebook = self.view(self.state["codebook"].detach())
        return Look(self.view(z_e), codebook, self.usable, mask)

    def look_up(
        self, z_e: Tensor, clock: Clock | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Codes int64 [L, N] of prepared latents [L, N, d]; drawn at random only with a clock."""
        look = self.look(z_e, mask)
        for technique in self._chooses:
            settings = self.settings[technique.name]
            codes = technique.choose(self.state, look, clock, settings)
            if codes is not None:
                return codes
        return look.nearest()

    def embed(self, codes: Tensor) -> Tensor:
        """Vectors [L, N, d] of codes int64 [L, N]."""
        return gather_codes(self.state["codebook"], codes)

    def assign(self, z_e: Tensor, clock: Clock, mask: Tensor | None = None) -> Assigned:
        """Look up latents [L, N, d] and penalise them; gradients reach encoder and codes.

        Args:
            z_e: latents.
            clock: where each lane stands, with this codebook's seeds.
            mask: bool [L, N], latents that count; all where None.
        """
        self._remake()
        z_e = self.prepare(z_e)
        codes = self.look_up(z_e.detach(), clock, mask)
        chosen = self.embed(codes)
        step = Step(z_e, codes, chosen, clock, self.size, mask, self.view, self.sync)
        terms: dict[str, Tensor] = {}
        for technique in self._penalises:
            term = technique.penalise(self.state, step, self.settings[technique.name])
            if term is not None:
                terms[technique.name] = term
        return self._assigned(step, terms)

    def pass_over(self, z_e: Tensor, clock: Clock) -> Assigned:
        """What `assign` gives where no latent counts, without looking up."""
        codes = torch.zeros(z_e.shape[:2], dtype=torch.int64, device=z_e.device)
        nothing = torch.zeros_like(codes, dtype=torch.bool)
        step = Step(z_e, codes, torch.zeros_like(z_e), clock, self.size, nothing, sync=self.sync)
        zero = z_e.new_zeros(z_e.shape[0])
        if self.sync is not ALONE:  # processes that share gradients wait for those of every tensor
            trained = (self.state[name].flatten(1).sum(1) for name in self.trained)
            zero = functools.reduce(lambda total, value: total + 0 * value, trained, zero)
        return self._assigned(step, {t.name: zero for t in self._penalises})

    def _assigned(self, step: Step, terms: dict[str, Tensor]) -> Assigned:
        if not terms:
            return Assigned(step, step.z_e.new_zeros(step.z_e.shape[0]), terms)
        return Assigned(step, functools.reduce(operator.add, terms.values()), terms)

    @property
    def penalises(self) -> list[str]:
        """The techniques whose penalty counts in some lane."""
        return [technique.name for technique in self._penalises]

    def weighs(self, lane: int) -> list[str]:
        """The techniques whose penalty counts in a lane."""
        return [t.name for t in self.techniques if self._weighs(t, self.host_settings[lane])]

    def _weighs(self, technique: Technique, host: HostSettings) -> bool:
        by = technique.weighed_by
        return _acts(technique, "penalise") and (by is None or bool(host[technique.name][by]))

    def _host_settings(self, config: CodebookConfig, samples: int) -> HostSettings:
        pairs = zip(self.techniques, self._blocks, strict=True)
        return {t.name: t.lane_settings(getattr(config, block), samples) for t, block in pairs}

    def _take_settings(self) -> None:
        self.settings.take(self.host_settings, len(self.seeds) // len(self.host_settings))
        hosts = self.host_settings
        self._penalises = [t for t in self.techniques if any(self._weighs(t, h) for h in hosts)]

    def estimate(self, step: Step) -> Tensor:
        """What the decoder gets, [L, N, d]; its gradient goes to the latents."""
        for technique in self._estimates:
            z_q = technique.estimate(self.state, step, self.settings[technique.name])
            if z_q is not None:
                return z_q
        return straight_through(step.z_e, step.chosen)

    def due(self, before: Sequence[int], after: Sequence[int]) -> Due:
        """The techniques that could maintain in a step; all of it known to the host.

        Args:
            before: samples drawn by each lane before the step.
            after: the same after the step.
        """
        lanes = list(zip(self.host_settings, before, after, strict=True))
        return tuple(
            technique.name
            for technique in self.techniques
            if any(technique.due(host[technique.name], b, a) for host, b, a in lanes)
        )

    def after_step(self, step: Step, before: Sequence[int], after: Sequence[int]) -> None:
        """Update and maintain after the optimiser's step.

        Args:
            step: the record of `assign`.
            before: samples drawn by each lane before the step, known to the host.
            after: the same after the step.
        """
        self.finish(step, self.due(before, after))

    @torch.no_grad()
    def finish(self, step: Step, due: Due) -> None:
        """What `after_step` does, where it is known what is due."""
        done = step.detached()
        for technique in self.techniques:
            self._set(technique.update(self.state, done, self.settings[technique.name]))
        for technique in self.techniques:
            if technique.name not in due:
                continue
            new, replacement = technique.maintain(self.state, done, self.settings[technique.name])
            self._set(new)
            if replacement is not None:
                mask = self.sync.same(replacement.mask)
                self._replace(Replacement(mask, self.sync.same(replacement.vectors)))

    def _remake(self) -> None:
        for technique in self._makes:
            codebook = technique.codebook(self.state)
            if codebook is not None:
                self.state["codebook"] = codebook

    def _replace(self, replacement: Replacement) -> None:
        vectors = functools.reduce(lambda v, t: t.settle(v), self._settles, replacement.vectors)
        if self.open_dims is not None:
            vectors = vectors * self.open_dims()
        replacement = Replacement(replacement.mask, vectors)
        mask = replacement.mask.unsqueeze(-1)
        self._set({"codebook": replacement.vectors.where(mask, self.state["codebook"])})
        for technique in self.techniques:
            self._set(technique.replaced(self.state, replacement))

    def _set(self, new: State) -> None:
        for name, value in new.items():
            if name in self._adopted:
                self.state[name].copy_(value)
            else:
                self.state[name] = value


def _acts(technique: Technique, moment: str) -> bool:
    return getattr(type(technique), moment) is not getattr(Technique, moment)


def _blocks(config: CodebookConfig) -> dict[str, Block]:
    named = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: block for name, block in named.items() if isinstance(block, Block)}
