"""How often a trial is tried: deaths of processes and nodes are no fault of its own.

Tune counts all failures alike over a trial's whole life. On a cluster whose nodes come and go for
days that would fail trials that get on, and would train one three times that raises each time.
"""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from trainables.errors import InputError
from trainables.patience import StorageError

# How many failures in a row, without a new report between them, a trial goes on from: deaths of
# its process or node, such as by the kernel where memory ran out, and exceptions, such as of a
# device that is lost.
DEATHS, EXCEPTIONS = 4, 1


class RetriedTrial(Trial):  # type: ignore[misc]
    """A Tune trial that goes on after a failure while it gets on; at bad input it ends at once."""

    deaths = exceptions = 0
    reached = 0.0

    def handle_error(self, exc: Exception | None = None) -> None:
        """Take in a failure, before Tune asks whether to go on.

        Raises:
            StorageError: the run's disk is full or away; that is the search's end, not the trial's.
        """
        cause = exc.cause if isinstance(exc, RayTaskError) else exc
        if isinstance(cause, StorageError):
            raise cause
        super().handle_error(exc)
        # Below 0 is without end, 0 is no more, in Tune's words.
        self.max_failures = -1 if self._goes_on(cause) else 0

    def update_last_result(self, result: dict[str, Any]) -> None:
        """Take in a report; a new one, not one sent again, shows that the trial gets on."""
        super().update_last_result(result)
        if result.get("samples", 0) > self.reached:
            self.reached = result["samples"]
            self.deaths = self.exceptions = 0

    def _goes_on(self, cause: object) -> bool:
        if isinstance(cause, InputError):
            return False
        if died(cause):
            self.deaths += 1
        else:
            self.exceptions += 1
        return self.deaths <= DEATHS and self.exceptions <= EXCEPTIONS


def died(cause: object) -> bool:
    """Whether a process or its node was lost, not an exception raised."""
    raised = isinstance(cause, RayActorError) and cause.actor_init_failed
    return isinstance(cause, RayError) and not raised


def with_retries(scheduler: TrialScheduler) -> TrialScheduler:
    """The scheduler, which sees every trial first, making each a RetriedTrial."""
    added = scheduler.on_trial_add

    def on_trial_add(controller: Any, trial: Trial) -> None:
        trial.__class__ = RetriedTrial
        added(controller, trial)

    scheduler.on_trial_add = on_trial_add
    return scheduler
