"""Entropy term: rewards an even use of the codes over all latents of the step."""

from __future__ import annotations

import math

from torch import Tensor

from trainables.codebooks.soft_assignment import entropy_of, soft_assignment
from trainables.codebooks.technique import Settings, State, Step, Technique


class Entropy(Technique):
    """weight * (log K - H(q)), q the mean over all latents of softmax(-||z - e||^2 / (t s)).

    KL(q || uniform), which is -H(q) up to a constant: the batch half of the entropy loss of
    LFQ (Yu et al. 2023, MAGVIT-v2, eq. 4). s is the step's mean squared distance to the nearest
    code, so the temperature t does not depend on the scale of the latents.
    """

    name = "entropy"
    weighed_by = "weight"

    def penalise(self, state: State, step: Step, settings: Settings) -> Tensor:
        """The entropy term [L]; needs the soft assignment [L, N, K] with gradient."""
        q = step.mean(soft_assignment(state, step, settings["temperature"]))
        usable = state.get("usable")
        if usable is None:
            most: Tensor | float = math.log(step.size)
        else:
            most = usable.sum(-1).to(q.dtype).log()
        return settings["weight"] * (most - entropy_of(q))
