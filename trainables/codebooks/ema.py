"""EMA codebook update: each code is the moving average of the latents that chose it."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.codebooks.technique import Replacement, Settings, Shape, State, Step, Technique
from trainables.config_codebook import EmaUpdate

# Counts below this keep their code as it is: the quotient would be rounding noise.
_LEAST_COUNT = 1e-20


class Ema(Technique):
    """N_i <- decay N_i + (1 - decay) n_i, m_i likewise over sums, e_i = m_i / N_i.

    van den Oord et al. 2017, appendix A.1, eq. 6 to 8. With `accumulate` n, the statistics of n
    steps make one update. Without Laplace smoothing: an unused code stays where it is, its sum and
    count decay together.
    """

    name = "update"

    def __init__(self, config: EmaUpdate) -> None:
        """Keep the number of steps in an update, which fixes the state."""
        self.accumulate = config.accumulate

    def start(self, shape: Shape, key: Tensor) -> State:
        """Counts of one, and sums that `replaced` fills when the codes are set."""
        state = {
            "ema_count": shape.zeros(shape.size) + 1,
            "ema_sum": shape.zeros(shape.size, shape.dim),
        }
        if self.accumulate > 1:
            state["ema_new_count"] = torch.zeros_like(state["ema_count"])
            state["ema_new_sum"] = torch.zeros_like(state["ema_sum"])
        return state

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """One EMA update, or its share of an accumulated one."""
        counts, sums = step.counts, step.sums
        decay = settings["decay"].unsqueeze(-1)
        if self.accumulate == 1:
            return self._averaged(state, counts, sums, decay)
        counts = state["ema_new_count"] + counts
        sums = state["ema_new_sum"] + sums
        due = (step.clock.step % self.accumulate == 0).unsqueeze(-1)
        averaged = self._averaged(state, counts, sums, decay.where(due, 1.0))
        zero = counts.new_zeros(())
        return averaged | {
            "ema_new_count": zero.where(due, counts),
            "ema_new_sum": zero.where(due.unsqueeze(-1), sums),
        }

    def replaced(self, state: State, replacement: Replacement) -> State:
        """Give new codes the mean count and the sum that goes with it.

        Setting the code alone would be undone by the next update.
        """
        mask = replacement.mask
        count = state["ema_count"].mean(-1, keepdim=True).where(mask, state["ema_count"])
        total = replacement.vectors * count.unsqueeze(-1)
        state_after = {
            "ema_count": count,
            "ema_sum": total.where(mask.unsqueeze(-1), state["ema_sum"]),
        }
        if self.accumulate > 1:
            state_after["ema_new_count"] = state["ema_new_count"].masked_fill(mask, 0)
            state_after["ema_new_sum"] = state["ema_new_sum"].masked_fill(mask.unsqueeze(-1), 0)
        return state_after

    def _averaged(self, state: State, counts: Tensor, sums: Tensor, decay: Tensor) -> State:
        count = torch.lerp(counts, state["ema_count"], decay)
        total = torch.lerp(sums, state["ema_sum"], decay.unsqueeze(-1))
        code = total / count.clamp_min(_LEAST_COUNT).unsqueeze(-1)
        known = (count > _LEAST_COUNT).unsqueeze(-1)
        return {
            "ema_count": count,
            "ema_sum": total,
            "codebook": code.where(known, state["codebook"]),
        }
