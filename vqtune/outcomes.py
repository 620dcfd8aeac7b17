"""What Optuna is told when a trial ends: its state, its values, and whether it held the constraint.

Only what is true: a trial stopped early has no values, a diverged or crashed one has failed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from analysis.constraint import Constraint


class Yardstick:
    """The search's constraint, and the baseline's reports that it holds trials against.

    Args:
        constraint: as in SearchSettings.
    """

    def __init__(self, constraint: str | None) -> None:
        """Begin without a baseline."""
        self.constraint = Constraint.parse(constraint) if constraint is not None else None
        self._curve: dict[float, float] = {}
        self._complete = False

    def hear(self, report: Mapping[str, Any]) -> None:
        """Learn a report of the baseline's."""
        value = _number(report, self.constraint.metric) if self.constraint else math.nan
        samples = _number(report, "samples")
        if math.isfinite(value) and math.isfinite(samples):
            self._curve[samples] = value
            self._complete = self._complete or bool(report.get("complete"))

    def violation(self, report: Mapping[str, Any]) -> float | None:
        """How far a trial with this last report is beyond the limit; None where nobody can say.

        A complete trial is compared with the baseline's end, and holds before that is known; one
        that was stopped, with where the baseline was at its samples.
        """
        if self.constraint is None:
            return None
        value, complete = _number(report, self.constraint.metric), bool(report.get("complete"))
        trained = _number(report, "samples")
        if not complete and not (self.constraint.relative and self._reaches(trained)):
            return None
        reference = None
        if self._curve and (self._complete or not complete):
            samples = sorted(self._curve)
            at = samples[-1] if complete else trained
            reference = float(np.interp(at, samples, [self._curve[s] for s in samples]))
        return min(self.constraint.violation(value, reference), sys.float_info.max)

    def _reaches(self, samples: float) -> bool:
        return bool(self._curve) and min(self._curve) <= samples <= max(self._curve)


def outcome(
    report: Mapping[str, Any] | None, error: bool, objectives: Mapping[str, str]
) -> tuple[TrialState, list[float] | None]:
    """How a trial with this last report ended, in Optuna's words."""
    if error or not report or report["diverged"]:
        return TrialState.FAIL, None
    values = [_number(report, name) for name in objectives]
    if not all(map(math.isfinite, values)):
        return TrialState.FAIL, None
    return (TrialState.COMPLETE, values) if report["complete"] else (TrialState.PRUNED, None)


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    report: Mapping[str, Any] | None,
    error: bool,
    objectives: Mapping[str, str],
    yardstick: Yardstick,
) -> None:
    """Tell Optuna how a trial ended."""
    state, values = outcome(report, error, objectives)
    if report and state != TrialState.FAIL:
        violation, key = yardstick.violation(report), str(yardstick.constraint)
        # A session that was killed may have come as far as this.
        if violation is not None and key not in trial.constraints:
            trial.set_constraint(key, violation)
    study.tell(trial, values, state=state)


def _number(report: Mapping[str, Any], name: str) -> float:
    value = report.get(name)
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan
