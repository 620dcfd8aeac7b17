"""Puts why a trial was stopped into its last report, before anybody records or shows that."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from vqtune.pareto_asha import ParetoASHA


class StopReasons(Callback):  # type: ignore[misc]
    """The first to hear of a report; Tune lets callbacks change it in place."""

    def __init__(self, scheduler: ParetoASHA) -> None:
        """Ask this scheduler."""
        self.scheduler = scheduler

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Say why, where this report is the trial's last by the scheduler's word."""
        reason = self.scheduler.reasons.get(trial.config["trial_id"])
        if reason is not None and result.get("done") and not result.get("complete"):
            result["reason"] = reason
