"""Early stopping on several objectives: asynchronous successive halving by Pareto rank."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any, Literal

from ray.tune.schedulers import FIFOScheduler

from analysis.constraint import Constraint
from vqtune.rung import Arrival, Rung

# Between where a trial was stopped and why, in its reason.
STOPPED_FOR = ": not among the best "


class ParetoASHA(FIFOScheduler):  # type: ignore[misc]
    """Stops, at each of a few rungs, the trials that are not among the best 1/eta there.

    Asynchronous successive halving (Li et al. 2020, the variant that stops) with the order of a
    rung by feasibility, then non-dominated rank, then hypervolume contribution (see `Rung`); with
    one objective and no constraint it is ASHA as it was published. A trial is judged on the report
    with which it reaches a rung, against all that have reached it; the first always goes on, one
    that dominates all others always goes on, and one with a value that is not finite stops.

    With several brackets (Hyperband, Li et al. 2018) a trial belongs to one of them, which begins
    1, eta, eta², ... times as late and whose trials compare among themselves.

    In place of `perplexity` a rung compares the perplexity that a trial is heading for, `usage` x
    `codes`, so that a codebook that has yet to grow is not judged on what it cannot have.

    Args:
        objectives: metrics in each report, and which way is better.
        samples: full budget, in units of time_attr.
        grace: samples of the first rung.
        reduction_factor: eta.
        brackets: how many groups of trials.
        constraint: what makes a trial feasible, such as `recon_loss <= 1.0*baseline`.
        seed: of brackets and tie-breaks; each trial's depend on it and on the trial's name alone.
        time_attr: the metric that counts what has been spent.

    Raises:
        ValueError: settings that leave no rung, or an objective that is neither max nor min; from
            `on_trial_result`, a report without one of the metrics.

    A trial is known by `trial_id` in its config, or else by Tune's own id; `role: baseline` there
    marks the baseline, which is never stopped and is compared in every bracket.
    """

    def __init__(
        self,
        objectives: Mapping[str, Literal["max", "min"]],
        samples: float,
        grace: float,
        reduction_factor: float = 3.0,
        brackets: int = 1,
        constraint: str | None = None,
        seed: int = 0,
        time_attr: str = "samples",
    ) -> None:
        """Set up the rungs."""
        super().__init__()
        _check(objectives, samples, grace, reduction_factor, brackets)
        self._signs = {name: -1.0 if way == "max" else 1.0 for name, way in objectives.items()}
        self._constraint = None if constraint is None else Constraint.parse(constraint)
        self._eta, self._seed, self._time = float(reduction_factor), seed, time_attr
        #: Rungs of each bracket by the samples at which they stand, the last first.
        self.rungs: list[dict[float, Rung]] = [
            {at: Rung(len(objectives), self._constraint) for at in reversed(standing)}
            for standing in _standing(samples, grace, float(reduction_factor), brackets)
        ]
        self._weights = [self._eta**left / (left + 1) for left in reversed(range(len(self.rungs)))]
        #: Trials that were told to stop, with where and why in words.
        self.reasons: dict[str, str] = {}

    @property
    def stopped(self) -> set[str]:
        """Trials that were told to stop."""
        return set(self.reasons)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        trial_id = str(trial.config.get("trial_id", trial.trial_id))
        baseline = trial.config.get("role") == "baseline"
        return str(self.CONTINUE if self.hear(trial_id, result, baseline) else self.STOP)

    def hear(self, trial_id: str, report: Mapping[str, Any], baseline: bool = False) -> bool:
        """Take in a report; returns whether the trial goes on.

        A report that comes again changes nothing and gets the answer that it got.
        """
        chance = random.Random(f"{self._seed}/{trial_id}")
        bracket = chance.choices(range(len(self.rungs)), self._weights)[0]
        key = chance.random()
        for number, rungs in enumerate(self.rungs):
            if baseline or number == bracket:
                at = _reached(rungs, report[self._time])
                if at is not None and trial_id not in rungs[at].arrivals:
                    rungs[at].add(trial_id, self._arrival(report, key), baseline)
                    if not (baseline or rungs[at].goes_on(trial_id, self._eta)):
                        self.reasons[trial_id] = self._reason(at, len(rungs[at].arrivals))
        return trial_id not in self.reasons

    def debug_string(self) -> str:
        """How many trials stand at each rung."""
        rungs = sorted({(at, b) for b, rungs in enumerate(self.rungs) for at in rungs})
        counts = [f"{at:g}: {len(self.rungs[bracket][at].arrivals)}" for at, bracket in rungs]
        return f"ParetoASHA: trials at {', '.join(counts)}; {len(self.reasons)} stopped"

    def _reason(self, at: float, trials: int) -> str:
        return (
            f"stopped at the rung of {at:,.0f} {self._time}{STOPPED_FOR}1/{self._eta:g} of "
            f"{trials} there"
        )

    def _arrival(self, report: Mapping[str, Any], key: float) -> Arrival:
        costs = tuple(sign * rung_value(report, name) for name, sign in self._signs.items())
        limited = None if self._constraint is None else rung_value(report, self._constraint.metric)
        return Arrival(costs, limited, key)


def rung_value(report: Mapping[str, Any], metric: str) -> float:
    """What a rung compares; raises ValueError for a metric that is not in the report."""
    if metric not in report:
        raise ValueError(
            f"objective {metric}: no trial reports it, allowed: "
            f"{', '.join(sorted(k for k, v in report.items() if isinstance(v, (int, float))))}"
        )
    if metric == "perplexity" and "usage" in report and "codes" in report:
        return float(report["usage"] * report["codes"])
    return float(report[metric])


def _reached(rungs: Mapping[float, Rung], samples: float) -> float | None:
    """Where the last rung stands that is at no more than so many samples."""
    return next((at for at in rungs if samples >= at), None)


def _standing(samples: float, grace: float, eta: float, brackets: int) -> list[list[float]]:
    """Where the rungs of each bracket stand: at grace, eta times it, and so on."""
    count = math.ceil(math.log(samples / grace) / math.log(eta) - 1e-9)
    places = [grace * eta**i for i in range(count)]
    return [places[bracket:] for bracket in range(brackets)]


def _check(
    objectives: Mapping[str, str], samples: float, grace: float, eta: float, brackets: int
) -> None:
    if not objectives:
        raise ValueError("objectives: found none, allowed: one metric or more, each max or min")
    for name, way in objectives.items():
        if way not in ("max", "min"):
            raise ValueError(f"objectives.{name}: found {way!r}, allowed: 'max' or 'min'")
    if not (math.isfinite(eta) and eta > 1):
        raise ValueError(f"reduction_factor: found {eta!r}, allowed: more than 1")
    if not 0 < grace < samples < math.inf:
        raise ValueError(
            f"grace: found {grace!r}, allowed: more than 0 and less than the {samples!r} samples "
            "of a full training"
        )
    if not (
        isinstance(brackets, int) and brackets >= 1 and grace * eta ** (brackets - 1) < samples
    ):
        raise ValueError(
            f"brackets: found {brackets!r}, allowed: at least 1, and the last one's first rung "
            f"before {samples!r} samples"
        )
