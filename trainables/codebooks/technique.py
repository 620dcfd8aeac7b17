"""The contract of a codebook technique: five moments, pure functions, named state.

A technique acts at one or more of seed, look up, penalise, update and maintain, and nowhere else.
Every tensor carries a leading lane axis L; nothing here may wait for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trainables.config import Training
from trainables.config_block import Block, is_lane_field

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
    """Where each lane stands: int64 [L], before and after the current step."""

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


@dataclass(frozen=True)
class Step:
    """One training step as the codebook saw it.

    Attributes:
        z_e: latents [L, N, d]; with gradient in `penalise`, without after it.
        codes: int64 [L, N].
        chosen: the codes' vectors [L, N, d]; with gradient where the codebook is a parameter.
        clock: where each lane stands.
        size: number of codes K.
    """

    z_e: Tensor
    codes: Tensor
    chosen: Tensor
    clock: Clock
    size: int

    @cached_property
    def flat_codes(self) -> Tensor:
        """Codes numbered through all lanes: int64 [L * N]."""
        return flatten_codes(self.codes, self.size)

    @cached_property
    def counts(self) -> Tensor:
        """How many latents chose each code: [L, K], in the latents' dtype."""
        lanes = self.codes.shape[0]
        zeros = self.z_e.new_zeros(lanes * self.size)
        ones = self.z_e.new_ones(1).expand(self.flat_codes.shape[0])
        return zeros.index_add_(0, self.flat_codes, ones).view(lanes, self.size)


@dataclass(frozen=True)
class Replacement:
    """Codes to set anew: where `mask` [L, K], take `vectors` [L, K, d]."""

    mask: Tensor
    vectors: Tensor


class Technique:
    """Base of all techniques: acts at no moment. `settings` hold the config's lane fields [L]."""

    name: str
    trains_codebook = False  # whether the optimiser owns the codes

    def __init__(self, config: Any) -> None:
        """Take what fixes shapes from the technique's config block."""

    @classmethod
    def lane_settings(cls, config: Block, training: Training) -> dict[str, float]:
        """What may differ between lanes: by default the lane fields of the config block."""
        fields = type(config).model_fields
        return {name: getattr(config, name) for name, f in fields.items() if is_lane_field(f)}

    def start(self, shape: Shape) -> State:
        """The tensors this technique keeps, under names of its own."""
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
