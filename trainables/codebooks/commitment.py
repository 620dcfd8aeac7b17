"""Commitment cost: keeps the encoder near the codes it chose."""

from __future__ import annotations

from torch import Tensor

from trainables.codebooks.distance import squared_distance
from trainables.codebooks.technique import Settings, State, Step, Technique


class Commitment(Technique):
    """beta * mean ||z_e - sg(e)||^2 (van den Oord et al. 2017, eq. 3, third term)."""

    name = "commitment"
    weighed_by = "beta"

    def penalise(self, state: State, step: Step, settings: Settings) -> Tensor:
        """The commitment term [L]; its gradient reaches the encoder only."""
        return squared_distance(step.z_e, step.chosen, settings["beta"], step.mask)
