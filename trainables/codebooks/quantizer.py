"""A quantizer: transforms, groups and residual levels of codebooks over one map of latents.

It stands between the model, whose latents are [L, N, d], and the codebooks, which see one group
of one level each. Its streams of codes are ordered by level, then by group.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables import noise
from trainables.codebooks.batch_norm import BatchNorm
from trainables.codebooks.codebook import Assigned, Codebook, Due
from trainables.codebooks.dim_growth import DimGrowth
from trainables.codebooks.groups import join_groups, split_groups
from trainables.codebooks.lane_settings import HostSettings, LaneSettings
from trainables.codebooks.layer_norm import LayerNorm
from trainables.codebooks.projection import Projection
from trainables.codebooks.residual import Dropout, quantize_chain
from trainables.codebooks.technique import Clock, Look, State, Step
from trainables.codebooks.transform import Transform
from trainables.config_block import Block
from trainables.config_codebook import BatchNorm as BatchNormConfig
from trainables.config_codebook import CodebookConfig

# Room for the seeds of the streams of one quantizer: levels x groups.
MOST_STREAMS = 1 << 16


@dataclass(frozen=True)
class Quantized:
    """What a quantizer gives.

    Attributes:
        z_q: quantized latents [L, N, d]; their gradient goes to the latents.
        codes: int64 [L, S, N], one row a stream.
        loss: sum of all penalties [L], over levels a sum and over groups a mean.
        terms: each penalty [L] by technique name, detached.
        steps: the record of each level that `after_step` needs.
        clock: where each lane stands.
    """

    z_q: Tensor
    codes: Tensor
    loss: Tensor
    terms: dict[str, Tensor]
    steps: list[Step]
    clock: Clock

    def detached(self) -> Quantized:
        """What `after_step` needs, without the graph."""
        steps = [step.detached() for step in self.steps]
        return replace(self, z_q=self.z_q.detach(), loss=self.loss.detach(), steps=steps)


@dataclass(frozen=True)
class Plan:
    """What the host knows of a step of one quantizer.

    Attributes:
        due: the techniques of each level that could maintain.
        most: the most levels that a lane uses; None for all.
    """

    due: tuple[Due, ...]
    most: int | None


class Quantizer:
    """Everything between encoder and decoder, for all lanes of a stack.

    Args:
        configs: one a lane, alike in all that fixes shapes.
        samples: training.samples of each lane.
        seeds: int64 [L].
        device: where the state lives.
        dtype: of the state.
        place: which of a model's quantizers this is; each draws apart from the others.
    """

    def __init__(
        self,
        configs: Sequence[CodebookConfig],
        samples: Sequence[int],
        seeds: Tensor,
        device: torch.device,
        dtype: torch.dtype,
        place: int = 0,
    ) -> None:
        """Set up transforms and codebooks."""
        config = configs[0]
        self.size = config.size
        self.groups = config.groups.count if config.groups else 1
        self.levels = config.residual.levels if config.residual else 1
        self.streams = self.levels * self.groups
        self.seeds, self.place = seeds, place
        self._configs, self._samples = list(configs), list(samples)
        like = torch.zeros((), device=device, dtype=dtype)
        dim = config.lookup_dim // self.groups
        self.codebooks = [
            Codebook(configs, samples, self._seeds(level), dim, device, dtype)
            for level in range(self.levels)
        ]
        self.state: State = {}
        self.transforms: list[Transform] = []
        key = self._seeds(0)[:: self.groups]
        for transform, _ in _transforms(config, self.groups):
            self.transforms.append(transform)
            self.state |= transform.start(len(configs), config.dim, key, like)
        self.settings = LaneSettings(device, dtype)
        self.dropout: Dropout | None = None
        self._chances = torch.zeros(len(configs), device=device, dtype=dtype)
        self._take_settings()
        self._close_dims()

    def set_lane(self, lane: int, config: CodebookConfig, samples: int) -> None:
        """Let another trial of the same signature have a lane, its seed in `seeds` already.

        The state stays: whoever puts the trial there brings it.
        """
        self._configs[lane], self._samples[lane] = config, samples
        for level, book in enumerate(self.codebooks):
            book.seeds.copy_(self._seeds(level))
            book.set_lane(lane, config, samples)
        self._take_settings()

    @property
    def layout(self) -> tuple[object, ...]:
        """What of the lanes' settings decides which operators a step runs."""
        books = [(book.settings.layout, tuple(book.penalises)) for book in self.codebooks]
        return (self.settings.layout, self.dropout is not None, *books)

    def weighs(self, lane: int) -> set[str]:
        """The terms that count in a lane."""
        return {name for book in self.codebooks for name in book.weighs(lane)}

    @property
    def trained(self) -> dict[str, Tensor]:
        """State that the optimiser owns at the model's learning rate, {name: [L, ...]}."""
        return {name: self.state[name] for t in self.transforms for name in t.trained}

    @property
    def trained_codes(self) -> dict[str, Tensor]:
        """State that the optimiser owns at the codebook's learning rate, {name: [L * G, ...]}."""
        return {
            self._prefix(level) + name: book.state[name]
            for level, book in enumerate(self.codebooks)
            for name in book.trained
        }

    def adopt(self, parameters: dict[str, Tensor]) -> None:
        """Make parameters the state of their names, those of `trained` or `trained_codes`."""
        for name, value in parameters.items():
            if name in self.state:
                self.state[name] = value
        for level, book in enumerate(self.codebooks):
            for name in book.trained:
                if self._prefix(level) + name in parameters:
                    book.adopt(name, parameters[self._prefix(level) + name])

    def all_state(self) -> State:
        """Every tensor, [L, ...] of the transforms and [L * G, ...] of the codebooks."""
        found = dict(self.state)
        for level, book in enumerate(self.codebooks):
            found |= {self._prefix(level) + name: value for name, value in book.state.items()}
        return found

    @property
    def rebindable(self) -> list[State]:
        """The dictionaries behind `all_state`."""
        return [self.state, *(book.state for book in self.codebooks)]

    def set_state(self, state: State) -> None:
        """Make these tensors, named as in `all_state`, the state."""
        for name in self.state:
            self.state[name] = state[name]
        for level, book in enumerate(self.codebooks):
            for name in book.state:
                book.state[name] = state[self._prefix(level) + name]

    @torch.no_grad()
    def seed(self, pool: Tensor) -> None:
        """Let techniques seed the codes from latents [L, M, d] before training."""
        z = pool
        for transform in self.transforms:
            self.state |= transform.seed(self.state, z)
            settings = self.settings[transform.name]
            z, _ = transform.enter(self.state, z, settings, None, fit=False)
        rest = split_groups(z, self.groups)
        for book in self.codebooks:
            book.seed(rest)
            if self.levels > 1:
                rest = rest - book.embed(book.look_up(rest))
        self._close_dims()

    @torch.no_grad()
    def look(self, z_e: Tensor) -> Look:
        """What the first level's lookup of latents [L, N, d] compares; its groups are lanes."""
        z, _ = self._enter(z_e, None, fit=False)
        book = self.codebooks[0]
        return book.look(book.prepare(split_groups(z, self.groups)))

    @torch.no_grad()
    def look_up(self, z_e: Tensor) -> Tensor:
        """Codes int64 [L, S, N] of latents [L, N, d], by frozen codebooks."""
        z, _ = self._enter(z_e, None, fit=False)
        rest = split_groups(z, self.groups)
        found = []
        for book in self.codebooks:
            prepared = book.prepare(rest)
            codes = book.look_up(prepared)
            found.append(codes.unflatten(0, (-1, self.groups)))
            if self.levels > 1:
                rest = prepared - book.embed(codes)
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def embed(self, codes: Tensor, levels: int | None = None) -> Tensor:
        """Quantized latents [L, N, d] of codes int64 [L, S, N], by the first `levels` only."""
        each = codes.unflatten(1, (self.levels, self.groups)).unbind(1)
        books = self.codebooks[:levels]
        vectors = [book.embed(c.flatten(0, 1)) for book, c in zip(books, each, strict=False)]
        return self._leave(join_groups(torch.stack(vectors).sum(0), self.groups))

    @torch.no_grad()
    def unquantized(self, z_e: Tensor) -> Tensor:
        """What the decoder would get if nothing were quantized, [L, N, d]."""
        z, _ = self._enter(z_e, None, fit=False)
        prepared = self.codebooks[0].prepare(split_groups(z, self.groups))
        return self._leave(join_groups(prepared, self.groups))

    def most(self, steps: Sequence[int]) -> int | None:
        """The most levels that a lane uses in the step of this number in each; None for all."""
        return self.dropout.most(steps) if self.dropout else None

    def plan(self, before: Sequence[int], after: Sequence[int], steps: Sequence[int]) -> Plan:
        """What the host knows of a step: it decides which operators run, and nothing else does.

        Args:
            before: samples drawn by each lane before the step.
            after: the same after the step.
            steps: the step's number in each lane, from 1.
        """
        return Plan(self._due(before, after), self.most(steps))

    def quantize(
        self, z_e: Tensor, clock: Clock, mask: Tensor | None = None, most: int | None = None
    ) -> Quantized:
        """Look up latents [L, N, d] and penalise them; gradients reach encoder and codes.

        Args:
            z_e: latents.
            clock: where each lane stands.
            mask: bool [L, N], latents that count; all where None.
            most: as `most` tells, where the host knows the step.
        """
        z, new = self._enter(z_e, mask, fit=True)
        self.state |= new
        z = split_groups(z, self.groups)
        if mask is not None and self.groups > 1:
            mask = mask.repeat_interleave(self.groups, 0)
        if self.levels == 1:
            book = self.codebooks[0]
            assigned = [book.assign(z, clock.for_lanes(book.seeds), mask)]
            step = assigned[0].step
        else:
            assigned, step = quantize_chain(self.codebooks, z, clock, mask, self.dropout, most)
        z_q = self._leave(join_groups(self.codebooks[0].estimate(step), self.groups))
        codes = torch.stack([one.step.codes for one in assigned], dim=1)
        if self.groups > 1:
            codes = codes.unflatten(0, (-1, self.groups)).transpose(1, 2).flatten(1, 2)
        loss, terms = self._by_lane(assigned)
        return Quantized(z_q, codes, loss, terms, [one.step for one in assigned], clock)

    def after_step(self, quantized: Quantized, before: Sequence[int], after: Sequence[int]) -> None:
        """Update and maintain after the optimiser's step.

        Args:
            quantized: what `quantize` gave.
            before: samples drawn by each lane before the step, known to the host.
            after: the same after the step.
        """
        self.finish(quantized, self._due(before, after))

    @torch.no_grad()
    def finish(self, quantized: Quantized, due: Sequence[Due]) -> None:
        """What `after_step` does, where it is known what is due in each level."""
        for book, step, now in zip(self.codebooks, quantized.steps, due, strict=True):
            book.finish(step, now)
        for transform in self.transforms:
            settings = self.settings[transform.name]
            self.state |= transform.update(self.state, quantized.clock, settings)

    @property
    def in_use(self) -> list[Tensor]:
        """Codes that exist so far in each stream, int64 [L] each."""
        found = []
        for book in self.codebooks:
            usable = book.usable
            if usable is None:
                count = torch.full_like(self.seeds, self.size).unsqueeze(1).repeat(1, self.groups)
            else:
                count = usable.sum(-1).view(-1, self.groups)
            found += list(count.unbind(1))
        return found

    def _by_lane(self, assigned: list[Assigned]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = functools.reduce(operator.add, (one.loss for one in assigned))
        terms = {
            name: functools.reduce(operator.add, (one.terms[name].detach() for one in assigned))
            for name in assigned[0].terms
        }
        return self._lane_mean(loss), {name: self._lane_mean(t) for name, t in terms.items()}

    def _lane_mean(self, values: Tensor) -> Tensor:
        return values if self.groups == 1 else values.view(-1, self.groups).mean(1)

    def _enter(self, z: Tensor, mask: Tensor | None, fit: bool) -> tuple[Tensor, State]:
        new: State = {}
        for transform in self.transforms:
            settings = self.settings[transform.name]
            z, changed = transform.enter(self.state, z, settings, mask, fit)
            new |= changed
        return z, new

    def _leave(self, z_q: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            z_q = transform.leave(self.state, z_q)
        return z_q

    def _close_dims(self) -> None:
        """Codes have nothing in closed dimensions."""
        if "open_dims" in self.state:
            # Of the state alone: no circle, or a stack's memory would be freed late.
            dims = functools.partial(_open_dims, self.state, self.groups)
            for book in self.codebooks:
                book.open_dims = dims
                book.set_all()

    def _due(self, before: Sequence[int], after: Sequence[int]) -> tuple[Due, ...]:
        return tuple(book.due(before, after) for book in self.codebooks)

    def _take_settings(self) -> None:
        hosts: list[HostSettings] = [{} for _ in self._configs]
        for host, config, samples in zip(hosts, self._configs, self._samples, strict=True):
            for transform, block in _transforms(config, self.groups):
                host[transform.name] = transform.lane_settings(block, samples) if block else {}
        self.settings.take(hosts)
        chances = [lane.residual.dropout if lane.residual else 0.0 for lane in self._configs]
        self._chances.copy_(torch.tensor(chances, dtype=torch.float64))
        used = any(chances)
        self.dropout = Dropout(self.levels, self._chances, self.seeds) if used else None

    def _seeds(self, level: int) -> Tensor:
        """A seed for each stream of a level, int64 [L * G]; the first stream has the lane's own."""
        seeds = self.seeds.repeat_interleave(self.groups)
        group = torch.arange(self.groups, device=seeds.device).repeat(len(self.seeds))
        stream = self.place * MOST_STREAMS + level * self.groups + group
        return torch.where(stream == 0, seeds, noise.fold(seeds, 7070 + stream))

    def _prefix(self, level: int) -> str:
        return "" if self.levels == 1 else f"{level}."


def _open_dims(state: State, groups: int) -> Tensor:
    return split_groups(state["open_dims"].unsqueeze(1), groups)


def _transforms(config: CodebookConfig, groups: int) -> list[tuple[Transform, Block | None]]:
    """The transforms that a config asks for, each with its block."""
    found: list[tuple[Transform, Block | None]] = []
    if config.normalization is not None:
        kind = BatchNorm if isinstance(config.normalization, BatchNormConfig) else LayerNorm
        found.append((kind(config.normalization), config.normalization))
    inner = config.lookup_dim
    if config.dim_growth is not None:
        growth = DimGrowth(inner, config.dim_growth.start, groups)
        found.append((growth, config.dim_growth))
    elif config.low_dim is not None or inner != config.dim:
        found.append((Projection(inner), None))
    return found
