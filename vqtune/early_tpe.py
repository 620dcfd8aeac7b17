"""A sampler that learns from trials while they are young, and from those that were stopped.

Few trials of a search with early stopping are ever complete, and a stopped one has no final values.
But at the first rung all trials have been trained equally long: their values there are compared
among themselves, and never with those of a later rung or of the end (the lowest fidelity of BOHB,
Falkner et al. 2018). In the study a stopped trial stays what it is, pruned and without values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from vqtune.pareto_asha import rung_value

# The attribute of a trial that has reached the first rung.
_NOTE = "first_rung"


class FirstRung:
    """Where trials are compared.

    Args:
        samples: at which it stands.
        until: samples from which a report is too late for it: where the next one stands.
        objectives: metrics, and which way is better.
    """

    def __init__(self, samples: float, until: float, objectives: Mapping[str, str]) -> None:
        """Hear of no trial yet."""
        self.samples, self._until, self._objectives = samples, until, objectives

    def note(self, trial: optuna.Trial, report: Mapping[str, Any]) -> None:
        """Keep a trial's values with it, if this is the report with which it is there."""
        there = self.samples <= report["samples"] < self._until
        if there and not report["diverged"] and _NOTE not in trial.user_attrs:
            values = [rung_value(report, name) for name in self._objectives]
            trial.set_user_attr(_NOTE, {"samples": self.samples, "values": values})

    def values(self, trial: FrozenTrial) -> list[float] | None:
        """The values that were kept, None for a trial that has not come here or has failed."""
        note = trial.user_attrs.get(_NOTE)
        if note is None or note["samples"] != self.samples or trial.state == TrialState.FAIL:
            return None
        return [float(value) for value in note["values"]]


class EarlyTPE(BaseSampler):
    """Multi-objective TPE (Ozaki et al. 2022) over the values of a study's trials at a rung.

    While more trials are complete than have been there, as after a warm start from a search that
    compared elsewhere, it is TPE over the study itself.

    Args:
        tpe: what proposes; for one trial only.
        rung: where.
    """

    def __init__(self, tpe: TPESampler, rung: FirstRung) -> None:
        """Look at the study when it is asked."""
        self._tpe, self._rung = tpe, rung
        self._view: optuna.Study | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As TPE's."""
        return self._tpe.infer_relative_search_space(self._look(study), trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """As TPE's."""
        return self._tpe.sample_relative(self._look(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As TPE's."""
        view = self._look(study)
        return self._tpe.sample_independent(view, trial, param_name, param_distribution)

    def _look(self, study: optuna.Study) -> optuna.Study:
        if self._view is None:
            trials = study.get_trials(deepcopy=False)
            there = [
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, values=values
                )
                for trial in trials
                if (values := self._rung.values(trial)) is not None
            ]
            self._view = study
            if len(there) >= sum(trial.state == TrialState.COMPLETE for trial in trials):
                self._view = optuna.create_study(directions=study.directions)
                self._view.add_trials(there)
        return self._view
