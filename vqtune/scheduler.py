"""Early stopping: Ray Tune's ASHA, with rungs that survive a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from vqtune.spaces import SearchSettings


class ResumableASHA(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Asynchronous successive halving (Li et al. 2020) on one metric over `samples`.

    Ray gives a resumed trial a new id and an empty scheduler; this one knows trials by vqtune's own
    id, and `replay` fills the rungs from what the run has recorded. The baseline is never stopped.

    Args:
        metric: `recon_loss` (down) or `perplexity` (up).
        samples: full budget.
        grace: samples of the first rung.
        reduction_factor: eta; the best 1/eta of a rung go on.
    """

    def __init__(self, metric: str, samples: int, grace: int, reduction_factor: float) -> None:
        """Set up one bracket of empty rungs."""
        super().__init__(
            time_attr="samples",
            metric=metric,
            mode="max" if metric == "perplexity" else "min",
            max_t=samples,
            grace_period=grace,
            reduction_factor=reduction_factor,
            # Trials end by themselves, whatever their batch size makes of the last step.
            stop_last_trials=False,
        )

    def replay(self, trial_id: str, report: Mapping[str, Any]) -> None:
        """Record a report of an earlier session as if it came now."""
        # Tune asks no scheduler about the report with which a trial ends by itself.
        if not (report.get("complete") or report.get("diverged")):
            self._record(trial_id, report)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        action = self._record(trial.config["trial_id"], result)
        if trial.config["role"] == "baseline" or result["samples"] >= self._max_t:
            return str(self.CONTINUE)
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial; its rungs keep its values."""
        self._trial_info.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that failed."""
        self._trial_info.pop(trial.trial_id, None)

    def _record(self, trial_id: str, result: Mapping[str, Any]) -> str:
        value = result.get(self._metric)
        if value is None or not math.isfinite(value):
            return str(self.CONTINUE)  # a diverged trial ends by itself
        bracket = self._brackets[0]
        known = SimpleNamespace(trial_id=trial_id)
        return str(bracket.on_result(known, result["samples"], self._metric_op * value))


def make_scheduler(settings: SearchSettings, samples: int) -> TrialScheduler:
    """The scheduler that the space's `search` block asks for."""
    if settings.early_stopping == "none":
        return FIFOScheduler()
    grace = max(1, round(settings.grace * samples))
    return ResumableASHA(settings.early_stopping, samples, grace, settings.reduction_factor)
