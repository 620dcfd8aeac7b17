"""Sample entropy: rewards latents that are sure of their code."""

from __future__ import annotations

from torch import Tensor

from trainables.codebooks.soft_assignment import entropy_of, soft_assignment
from trainables.codebooks.technique import Settings, State, Step, Technique


class SampleEntropy(Technique):
    """weight * mean over latents of H(softmax(-||z - e||^2 / (t s))).

    The per-sample half of the entropy loss of LFQ (Yu et al. 2023, MAGVIT-v2, eq. 4); `entropy` is
    the batch half, and both together are the pair.
    """

    name = "sample_entropy"
    weighed_by = "weight"

    def penalise(self, state: State, step: Step, settings: Settings) -> Tensor:
        """The sample entropy term [L]."""
        p = soft_assignment(state, step, settings["temperature"])
        return settings["weight"] * step.mean(entropy_of(p))
