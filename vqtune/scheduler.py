"""The early stopping that a space asks for."""

from __future__ import annotations

from typing import Literal

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vqtune.pareto_asha import ParetoASHA
from vqtune.spaces import SearchSettings


def make_scheduler(settings: SearchSettings, samples: int, seed: int = 0) -> TrialScheduler:
    """The scheduler that the space's `search` block asks for.

    Args:
        settings: the block.
        samples: full budget of a trial.
        seed: the search's.
    """
    asked = settings.early_stopping
    if asked == "none":
        return FIFOScheduler()
    way: Literal["max", "min"] = "max" if asked == "perplexity" else "min"
    pareto = asked == "pareto"
    return ParetoASHA(
        settings.objectives if pareto else {asked: way},
        samples,
        first_rung(settings, samples),
        settings.reduction_factor,
        settings.brackets,
        settings.constraint if pareto else None,
        seed,
    )


def first_rung(settings: SearchSettings, samples: int) -> int:
    """The samples at which trials are first compared, of a full budget."""
    return max(1, round(settings.grace * samples))
