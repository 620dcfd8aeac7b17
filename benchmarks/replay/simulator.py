"""Workers on a simulated clock that train from the table what a real search asks them to.

Any class that decides in a real search decides here, through the adapters of `adapters`; this file
holds the clock, the trials and what is counted, and no search logic.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benchmarks.replay.table import BASELINE, Table

_REACHED = 1 - 1e-9


@dataclass
class Proposal:
    """What a search wants trained.

    Parameters
    ----------
    parameters : {name: value}, as an Optuna trial has them; None for the baseline
    config : the trial's Tune config; it holds vqtune's `trial_id` and `role`

    """

    parameters: dict[str, Any] | None
    config: dict[str, Any]


@dataclass
class Trial:
    """What schedulers and searchers see of a trial, in place of Ray Tune's own."""

    trial_id: str
    config: dict[str, Any]
    row: int
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)
    reports: int = 0


class Search(Protocol):
    """Who proposes."""

    def suggest(self, trial_id: str) -> Proposal | None:
        """The next trial, None where the search is over."""

    def on_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial has reported and goes on."""

    def on_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial has ended, by itself or stopped."""


class Scheduler(Protocol):
    """Who stops trials."""

    def on_add(self, trial: Trial) -> None:
        """A trial begins."""

    def goes_on(self, trial: Trial, result: dict[str, Any]) -> bool:
        """A trial has reported: whether it goes on."""

    def on_complete(self, trial: Trial, result: dict[str, Any]) -> None:
        """A trial has ended, by itself or stopped."""


@dataclass
class Outcome:
    """What a run has come to.

    Parameters
    ----------
    compute : what had been spent whenever a trial completed, in full trainings
    share : the hypervolume then, in shares of the full front's
    samples : trained in all
    completed, stopped, diverged : rows of the table, in the order in which they ended
    clock : simulated seconds

    """

    compute: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    samples: int = 0
    completed: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)
    clock: float = 0.0


def replay(
    table: Table, search: Search, scheduler: Scheduler, workers: int = 8, cap: float | None = None
) -> Outcome:
    """Run a search until it has the full front, or has used the table up.

    Each proposal is answered by the nearest config that this run has not trained yet. What is
    counted as spent is what running trials have trained by their last report.

    Args:
        table: what is trained from.
        search: who proposes.
        scheduler: who stops trials.
        workers: trials that run side by side.
        cap: full trainings after which the run ends too.
    """
    outcome = Outcome()
    unused = np.ones(len(table), dtype=np.bool_)
    events: list[tuple[float, int, Trial]] = []  # by time, then in the order of their start
    started = 0

    def start(now: float) -> bool:
        nonlocal started
        if not unused[1:].any():
            return False
        proposal = search.suggest(f"r{started:04d}")
        if proposal is None:
            return False
        row: int | None = BASELINE
        if proposal.parameters is not None:
            row = table.nearest(proposal.parameters, unused)
        if row is None:
            return False
        unused[row] = False
        trial = Trial(f"r{started:04d}", proposal.config, row)
        heapq.heappush(events, (now + float(table.curves[row].seconds[0]), started, trial))
        started += 1
        scheduler.on_add(trial)
        return True

    for _ in range(workers):
        start(0.0)
    while events:
        outcome.clock, order, trial = heapq.heappop(events)
        curve = table.curves[trial.row]
        result = curve.report(trial.reports) | {"trial_id": trial.trial_id}
        outcome.samples += result["samples"] - trial.last_result.get("samples", 0)
        trial.reports, trial.last_result = trial.reports + 1, result
        # As in Tune, nobody is asked about the report with which a trial ends by itself.
        if not result["done"] and scheduler.goes_on(trial, result):
            search.on_result(trial.trial_id, result)
            after = curve.seconds[trial.reports] - curve.seconds[trial.reports - 1]
            heapq.heappush(events, (outcome.clock + float(after), order, trial))
            continue
        scheduler.on_complete(trial, result)
        search.on_complete(trial.trial_id, result)
        trial.status = "TERMINATED"
        _count(table, outcome, trial, result)
        spent = outcome.samples / table.budget
        reached = bool(outcome.share) and outcome.share[-1] >= _REACHED
        if reached or (cap is not None and spent >= cap):
            break
        start(outcome.clock)
    return outcome


def _count(table: Table, outcome: Outcome, trial: Trial, result: dict[str, Any]) -> None:
    if result["diverged"]:
        outcome.diverged.append(trial.row)
    elif not result["complete"]:
        outcome.stopped.append(trial.row)
    else:
        outcome.completed.append(trial.row)
        outcome.compute.append(outcome.samples / table.budget)
        outcome.share.append(table.share(outcome.completed))
