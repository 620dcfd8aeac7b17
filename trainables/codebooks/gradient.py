"""Loss-based codebook update: the optimiser pulls the codes to their latents."""

from __future__ import annotations

from torch import Tensor

from trainables.codebooks.distance import squared_distance
from trainables.codebooks.technique import Settings, State, Step, Technique


class Gradient(Technique):
    """weight * mean ||sg(z_e) - e||^2 (van den Oord et al. 2017, eq. 3, second term).

    A code that is set anew keeps its Adam moments: those of an unused code have decayed, and with a
    small second moment its first steps are up to three times as long as usual.
    """

    name = "update"
    trained = ("codebook",)

    def penalise(self, state: State, step: Step, settings: Settings) -> Tensor:
        """The codebook term [L]; its gradient reaches the codes only."""
        return squared_distance(step.chosen, step.z_e, settings["weight"], step.mask)
