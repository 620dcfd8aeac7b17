"""SimVQ: frozen codes behind a learned linear map, so that one gradient moves them all."""

from __future__ import annotations

import math

from torch import Tensor

from trainables import noise
from trainables.codebooks.distance import squared_distance
from trainables.codebooks.technique import Settings, Shape, State, Step, Technique


class SimVq(Technique):
    """e_i = W c_i with random c_i that never change and a trained W [d, d].

    Zhu et al. 2024 ("Addressing Representation Collapse in Vector Quantized Models with One Linear
    Layer", section 4): the codebook term of the loss reaches W, and with it also the codes that
    nothing has chosen.
    """

    name = "update"
    trained = ("simvq_map",)

    def start(self, shape: Shape, key: Tensor) -> State:
        """Codes from N(0, 1/d); the map as torch initialises a linear layer."""
        codes = noise.normal(noise.fold(key, 707), (shape.size, shape.dim)).to(shape.dtype)
        draw = noise.uniform(noise.fold(key, 708), (shape.dim, shape.dim)).to(shape.dtype)
        return {
            "simvq_codes": codes / math.sqrt(shape.dim),
            "simvq_map": (2 * draw - 1) / math.sqrt(shape.dim),
        }

    def codebook(self, state: State) -> Tensor:
        """The codes that the map makes, [L, K, d], with gradient to the map."""
        return state["simvq_codes"] @ state["simvq_map"].mT

    def penalise(self, state: State, step: Step, settings: Settings) -> Tensor:
        """Weight * mean ||sg(z_e) - W c||^2 [L]; its gradient reaches the map only."""
        return squared_distance(step.chosen, step.z_e, settings["weight"], step.mask)

    def update(self, state: State, step: Step, settings: Settings) -> State:
        """The codes of the new map."""
        return {"codebook": self.codebook(state)}
