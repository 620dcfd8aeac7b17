"""The contract of a codebook technique: five moments, pure functions, named state.

A technique acts at one or more of seed, look up, penalise, update and maintain, and nowhere else.
Every tensor carries a leading lane axis L; nothing here may wait for the device. The groups of a
grouped codebook are lanes to a technique.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trainables.codebooks import moments
from trainables.codebooks.nearest import nearest_codes
from trainables.codebooks.sync import ALONE, Sync
from trainables.config_block import Block, lane_values

State = dict[str, Tensor]
Settings = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What fixes the sizes of a technique's state."""

    lanes: int
    size: int
    dim: int
    device: torch.device
    dtype: torch.dtype

    def zeros(self, *sizes: int) -> Tensor:
        """Zeros [L, *sizes] where and of the type that the codebook is."""
        return torch.zeros(self.lanes, *sizes, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Clock:
    """Where each lane stands: int64 [L], before and after the current step.

    Attributes:
        samples_before: drawn before the step.
        samples: drawn with the step.
        step: the step's number, from 1.
        seed: of the lane.
    """

    samples_before: Tensor
    samples: Tensor
    step: Tensor
    seed: Tensor

    def crossed(self, period: Tensor) -> Tensor:
        """Whether a multiple of `period` samples [L] lies in the step just done: bool [L]."""
        return self.samples // period > self.samples_before // period

    def passed(self, samples: Tensor) -> Tensor:
        """Whether the step just done reached `samples` [L]: bool [L]."""
        return (self.samples >= samples) & (self.samples_before < samples)

    def for_lanes(self, seed: Tensor) -> Clock:
        """The same clock for lanes that are repeated, each with a seed of its own."""
        times = seed.shape[0] // self.step.shape[0]
        if times == 1:
            return Clock(self.samples_before, self.samples, self.step, seed)
        before, after, step = (
            value.repeat_interleave(times)
            for value in (self.samples_before, self.samples, self.step)
        )
        return Clock(before, after, step, seed)


def as_it_is(x: Tensor) -> Tensor:
    """The view of a lookup by plain Euclidean distance."""
    return x


@dataclass(frozen=True)
class Step:
    """One training step as the codebook saw it.

    Attributes:
        z_e: latents [L, N, d]; with gradient in `penalise`, without after it.
        codes: int64 [L, N].
        chosen: the codes' vectors [L, N, d]; with gradient where the codes are trained.
        clock: where each lane stands.
        size: number of codes K.
        mask: bool [L, N], latents that count; all where None.
        view: how latents and codes [..., d] are seen by the distance.
        sync: how several processes that train one codebook agree.
    """

    z_e: Tensor
    codes: Tensor
    chosen: Tensor
    clock: Clock
    size: int
    mask: Tensor | None = None
    view: Callable[[Tensor], Tensor] = as_it_is
    sync: Sync = field(default=ALONE)
    # What several techniques compute alike in one step, by what it depends on.
    shared: dict[Hashable, Tensor] = field(default_factory=dict)

    @property
    def flat_codes(self) -> Tensor:
        """Codes numbered through all lanes: int64 [L * N]."""
        return self.once("flat codes", lambda: flatten_codes(self.codes, self.size))

    @property
    def counts(self) -> Tensor:
        """How many latents chose each code: [L, K], in the latents' dtype."""
        return self.once("counts", self._counts)

    @property
    def sums(self) -> Tensor:
        """Sum of the latents that chose each code: [L, K, d]."""
        return self.once("sums", self._sums)

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What several techniques compute alike, computed for the first of them."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the latents that count: [L, N, ...] to [L, ...]."""
        return moments.mean(values, self.mask)

    def _counts(self) -> Tensor:
        lanes = self.codes.shape[0]
        zeros = self.z_e.new_zeros(lanes * self.size)
        if self.mask is None:
            weights = self.z_e.new_ones(1).expand(self.flat_codes.shape[0])
        else:
            weights = self.mask.to(zeros.dtype).reshape(-1)
        counts = zeros.index_add_(0, self.flat_codes, weights).view(lanes, self.size)
        return self.sync.total(counts)

    def _sums(self) -> Tensor:
        lanes, _, dim = self.z_e.shape
        z_e = self.z_e if self.mask is None else self.z_e * self.mask.unsqueeze(-1)
        zeros = self.z_e.new_zeros(lanes * self.size, dim)
        zeros.index_add_(0, self.flat_codes, z_e.reshape(-1, dim))
        return self.sync.total(zeros.view(lanes, self.size, dim))

    def detached(self) -> Step:
        """The same record without the graph, and without what only penalties share."""
        return replace(self, z_e=self.z_e.detach(), chosen=self.chosen.detach(), shared={})


@dataclass(frozen=True)
class Look:
    """What a lookup compares, without gradient.

    Attributes:
        z_e: latents [L, N, d], as the distance sees them.
        codebook: codes [L, K, d], likewise.
        usable: bool [L, K], codes that may be chosen; all where None.
        mask: bool [L, N], latents that count; all where None.
    """

    z_e: Tensor
    codebook: Tensor
    usable: Tensor | None
    mask: Tensor | None = None

    def nearest(self) -> Tensor:
        """The nearest codes, int64 [L, N]."""
        return nearest_codes(self.z_e, self.codebook, self.usable)


@dataclass(frozen=True)
class Replacement:
    """Codes to set anew: where `mask` [L, K], take `vectors` [L, K, d]."""

    mask: Tensor
    vectors: Tensor


class Technique:
    """Base of all techniques: acts at no moment. `settings` hold the config's lane fields [L]."""

    name: str
    # State that the optimiser owns, trained at the codebook's learning rate.
    trained: tuple[str, ...] = ()
    # The setting that weighs the penalty: where it is 0 in all lanes there is none to compute.
    weighed_by: str | None = None

    def __init__(self, config: Any) -> None:
        """Take what fixes shapes from the technique's config block."""

    @classmethod
    def lane_settings(cls, config: Block, samples: int) -> dict[str, float]:
        """What may differ between lanes: by default the lane fields of the config block.

        Args:
            config: the technique's block.
            samples: the lane's training.samples, for shares of it.
        """
        return lane_values(config)

    def start(self, shape: Shape, key: Tensor) -> State:
        """The tensors this technique keeps, under names of its own.

        Args:
            shape: the codebook's.
            key: int64 [L], to draw from.
        """
        return {}

    def due(self, host: Mapping[str, float], before: int, after: int) -> bool:
        """Whether `maintain` could act in this step for a lane with these settings (host side).

        Plain arithmetic on numbers that the host knows, so that idle steps launch nothing;
        `maintain` decides again per lane, by the same arithmetic on the device.
        """
        return False

    def seed(self, state: State, pool: Tensor, key: Tensor) -> Replacement | None:
        """Before training, from latents [L, M, d]."""
        return None

    def usable(self, state: State) -> Tensor | None:
        """Look up: which codes may be chosen, bool [L, K]; None for all."""
        return None

    def prepare(self, state: State, z_e: Tensor) -> Tensor:
        """Look up: latents [L, N, d] as they are quantized, with gradient."""
        return z_e

    def settle(self, vectors: Tensor) -> Tensor:
        """Maintain: codes [L, K, d] to be set anew, moved to where codes may lie."""
        return vectors

    def codebook(self, state: State) -> Tensor | None:
        """Look up: the codes [L, K, d] made from what is trained; None for those in the state."""
        return None

    def view(self, x: Tensor) -> Tensor:
        """Look up: latents or codes [..., d] as the distance sees them."""
        return x

    def choose(
        self, state: State, look: Look, clock: Clock | None, settings: Settings
    ) -> Tensor | None:
        """Look up: the codes int64 [L, N]; None for the nearest.

        Nothing may be drawn at random where there is no clock, for nothing is trained then.
        """
        return None

    def estimate(self, state: State, step: Step, settings: Settings) -> Tensor | None:
        """Look up: what the decoder gets, [L, N, d]; None for the straight-through estimator."""
        return None

    def penalise(self, state: State, step: Step, settings: Settings) -> Tensor | None:
        """A loss term [L]."""
        return None

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """New values of state after the optimiser's step."""
        return {}

    def maintain(
        self, state: State, step: Step, settings: Settings
    ) -> tuple[State, Replacement | None]:
        """New values of state, and codes to set anew."""
        return {}, None

    def replaced(self, state: State, replacement: Replacement) -> State:
        """New values of state after codes were set anew, so that nothing undoes it."""
        return {}


def flatten_codes(codes: Tensor, size: int) -> Tensor:
    """Codes int64 [L, N] numbered through all lanes: [L * N]."""
    if codes.shape[0] == 1:
        return codes.reshape(-1)
    first = torch.arange(codes.shape[0], device=codes.device) * size
    return (codes + first.unsqueeze(-1)).reshape(-1)


def gather_codes(codebook: Tensor, codes: Tensor) -> Tensor:
    """Vectors [L, N, d] of codes int64 [L, N] in codebooks [L, K, d]."""
    lanes, size, dim = codebook.shape
    flat = codebook.reshape(lanes * size, dim).index_select(0, flatten_codes(codes, size))
    return flat.view(lanes, -1, dim)
