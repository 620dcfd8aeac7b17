"""How often a trial is tried: deaths of processes and nodes are no fault of its own.

Tune counts all failures alike over a trial's whole life. On a cluster whose nodes come and go for
days that would fail trials that get on, and would train one three times that raises each time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray.air.execution import PlacementGroupResourceManager
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import tune as tune_module
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from trainables.errors import InputError, named
from trainables.patience import StorageError

# How many failures in a row, without a new report between them, a trial goes on from: deaths of
# its process or node, such as by the kernel where memory ran out, and exceptions, such as of a
# device that is lost.
DEATHS, EXCEPTIONS = 4, 1
# Seconds for which deaths alone fail no trial: on a node that is short of memory Ray kills whatever
# starts, several times a second, and so would use up one trial after the other.
SHORTAGE = 30.0


class LaneLostError(RayActorError):  # type: ignore[misc]
    """The process of several trials died.

    Attributes:
        others: how many others were there; None where that has been told with another of them.
        spared: whether the trial only waited there, so that the fault is another one's.
    """

    def __init__(self, told: str, others: int | None, spared: bool) -> None:
        """Say `told`."""
        super().__init__(error_msg=told)
        self.others, self.spared = others, spared


class History:
    """What has befallen one trial since it last got on."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.deaths = self.exceptions = 0
        self.reached = self.first_death = 0.0
        self.last: Exception | None = None

    def hear(self, report: dict[str, Any]) -> None:
        """Take in a report; a new one, not one sent again, shows that the trial gets on."""
        if report.get("samples", 0) > self.reached:
            self.reached = report["samples"]
            self.deaths = self.exceptions = 0

    def goes_on(self, failure: Exception) -> bool:
        """Take in a failure; whether the trial is tried again.

        Raises:
            StorageError: the run's disk is full or away: the search's end, not the trial's.
        """
        cause = failure.cause if isinstance(failure, RayTaskError) else failure
        if isinstance(cause, StorageError):
            raise cause
        if isinstance(cause, InputError):  # it will be so again
            return False
        if isinstance(cause, LaneLostError) and cause.spared:
            return True
        now = time.monotonic()
        if not _died(cause):
            self.exceptions += 1
        else:
            self.deaths += 1
            if self.deaths == 1:
                self.first_death = now
        short = now < self.first_death + SHORTAGE
        return self.exceptions <= EXCEPTIONS and (self.deaths <= DEATHS or short)


def _died(cause: object) -> bool:
    """Whether a process or its node was lost, not an exception raised."""
    raised = isinstance(cause, RayActorError) and cause.actor_init_failed
    return isinstance(cause, RayError) and not raised


class Actors(RayActorManager):  # type: ignore[misc]
    """Tune's actors, which may also be lost in ways that it ends a search for.

    Where Ray kills one since its node is short of memory, or cannot set it up there, it says so
    with errors that are no RayActorError.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, (RayActorError, RayTaskError)):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        super()._actor_task_failed(tracked_actor_task, exception)


# How many processes of a trial, by Tune's id of it, have ended in a row.
Deaths = Callable[[str], int]


def of_its_own(_: Deaths) -> Actors:
    """An actor a trial, in a placement group."""
    return Actors(resource_manager=PlacementGroupResourceManager())


class _Controller(TuneController):  # type: ignore[misc]
    """Tune's loop over trials, which asks a trial's History whether to go on.

    An actor that dies while it takes over a trial is told of twice, of itself and of its task. Tune
    goes on from the first and fails the trial at the second, and would wait for ever for the
    takeover to end.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        actors: Callable[[Deaths], Actors],
        *arguments: Any,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._warn = warn
        self._histories: defaultdict[str, History] = defaultdict(History)
        self._actor_manager = actors(lambda trial_id: self._histories[trial_id].deaths)

    def _process_trial_result(self, trial: Trial, result: dict[str, Any]) -> Any:
        decision = super()._process_trial_result(trial, result)
        self._histories[trial.trial_id].hear(result)
        return decision

    def _process_trial_failure(self, trial: Trial, exception: Exception) -> None:
        history = self._histories[trial.trial_id]
        self._resetting_trials.discard(trial)
        if exception is history.last:
            return
        history.last = exception
        # Below 0 is without end, 0 is no more, in Tune's words.
        goes_on = history.goes_on(exception)
        trial.max_failures = -1 if goes_on else 0
        told_before = isinstance(exception, LaneLostError) and exception.others is None
        if goes_on and not told_before and history.deaths + history.exceptions == 1:
            name = trial.config.get("trial_id", trial.trial_id)
            self._warn(f"{name}: {_told(exception)}; it goes on from its last report")
        super()._process_trial_failure(trial, exception)


def _told(failure: Exception) -> str:
    cause = failure.cause if isinstance(failure, RayTaskError) else failure
    if not _died(cause):
        return f"it raised {named(cause)}"
    # Ray has one exception for both, with a text of many lines.
    told = "its node was lost" if "node has died" in str(cause) else "its process died"
    others = cause.others if isinstance(cause, LaneLostError) else 0
    return f"{told}, and with it {others} other trials" if others else told


@contextmanager
def retries(
    warn: Callable[[str], None] = lambda _: None,
    actors: Callable[[Deaths], Actors] = of_its_own,
) -> Iterator[None]:
    """Let Tune retry trials in this way.

    Args:
        warn: told of each that is.
        actors: makes what has the trials' actors.
    """
    before = tune_module.TuneController
    tune_module.TuneController = partial(_Controller, warn, actors)
    try:
        yield
    finally:
        tune_module.TuneController = before
