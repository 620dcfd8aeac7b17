"""Growth of the dimension: few dimensions of a trained projection at first, all of them later."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.codebooks.projection import Projection
from trainables.codebooks.technique import Clock, Settings, State
from trainables.config_block import Block
from trainables.config_codebook import DimGrowth as DimGrowthConfig


class DimGrowth(Projection):
    """Dimensions from `start` on are closed, and open once at a set moment, without a jump.

    While a dimension is closed its row of W_in is 0, and so are that dimension of every latent and
    of every code. When it opens nothing changes in that step: the columns of W_out are there
    already, multiplied by 0, and give the rows of W_in their first gradient. (No published
    recipe was found; function-preserving growth is Net2Net's, Chen et al. 2016.)
    """

    name = "dim_growth"

    def __init__(self, inner: int, first: int, groups: int) -> None:
        """Keep the dimension of the lookup, how many are open at first, and the groups."""
        super().__init__(inner)
        self.first, self.groups = first, groups

    @classmethod
    def lane_settings(cls, config: Block, samples: int) -> dict[str, float]:
        """The moment of growth in samples, at least 1."""
        assert isinstance(config, DimGrowthConfig)
        return {"samples_at": max(1, round(config.at * samples))}

    def start(self, lanes: int, dim: int, key: Tensor, like: Tensor) -> State:
        """The first dimensions of each group are open."""
        state = super().start(lanes, dim, key, like)
        place = torch.arange(self.inner, device=like.device) % (self.inner // self.groups)
        first = (place < self.first // self.groups).to(like.dtype)
        state["project_in.weight"] = state["project_in.weight"] * first.unsqueeze(-1)
        state["open_dims"] = first.repeat(lanes, 1)
        return state

    def enter(
        self, state: State, z: Tensor, settings: Settings, mask: Tensor | None, fit: bool
    ) -> tuple[Tensor, State]:
        """Project; closed dimensions stay 0 and get no gradient."""
        inner, _ = super().enter(state, z, settings, mask, fit)
        return inner * state["open_dims"].unsqueeze(1), {}

    def update(self, state: State, clock: Clock, settings: Settings) -> State:
        """Open all dimensions of the lanes whose moment has come."""
        grown = (clock.samples >= settings["samples_at"]).to(state["open_dims"].dtype)
        return {"open_dims": torch.maximum(state["open_dims"], grown.unsqueeze(-1))}
