"""Real searches and schedulers behind the two protocols of the simulator, each as it comes.

An adapter passes calls on in the order and with the arguments that its own tuner would use; what is
decided, the class itself decides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.replay.simulator import Proposal, Trial
from benchmarks.replay.table import DIRECTIONS, OBJECTIVES
from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.searcher import VQSearch
from vqtune.spaces import Space


def allowed(values: dict[str, Any]) -> bool:
    """Whether a proposal can be trained at all; one in some hundred cannot."""
    try:
        TrialConfig.from_dict(values)
    except InputError:
        return False
    return True


class VQTuneSearch:
    """vqtune's own searcher."""

    def __init__(self, searcher: VQSearch) -> None:
        """Pass calls on to it."""
        self._searcher = searcher

    def suggest(self, trial_id: str) -> Proposal | None:
        """Its next trial."""
        config = self._searcher.suggest(trial_id)
        if not isinstance(config, dict):
            return None
        if config["role"] == "baseline":
            return Proposal(None, config)
        return Proposal(dict(self._searcher._ot_trials[trial_id].params), config)

    def on_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell it."""
        self._searcher.on_trial_result(trial_id, result)

    def on_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell it."""
        self._searcher.on_trial_complete(trial_id, result=result)


class RaySearch:
    """Ray Tune's OptunaSearch on a define-by-run space."""

    def __init__(
        self, space: Space, sampler: optuna.samplers.BaseSampler | None, seed: int
    ) -> None:
        """With a sampler of one's own, or with the one that it brings."""
        self._searcher = OptunaSearch(
            space=lambda trial: {"trial": space.suggest(trial)},
            metric=list(OBJECTIVES),
            mode=list(DIRECTIONS),
            sampler=sampler,
            seed=None if sampler else seed,
        )

    def suggest(self, trial_id: str) -> Proposal:
        """Its next trial."""
        values = self._searcher.suggest(trial_id)["trial"]
        asked = 0
        while not allowed(values):
            # To Tune this is a trial that fails; the next one has an id of its own.
            refused = f"{trial_id}-{asked}"
            self._searcher._ot_trials[refused] = self._searcher._ot_trials.pop(trial_id)
            self._searcher.on_trial_complete(refused, error=True)
            values, asked = self._searcher.suggest(trial_id)["trial"], asked + 1
        parameters = dict(self._searcher._ot_trials[trial_id].params)
        return Proposal(parameters, {"trial_id": trial_id, "role": "search", "trial": values})

    def on_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell it."""
        self._searcher.on_trial_result(trial_id, result)

    def on_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell it."""
        self._searcher.on_trial_complete(trial_id, result=result)


class AskTell:
    """An Optuna study by itself; a trial that diverged has failed."""

    def __init__(self, space: Space, sampler: optuna.samplers.BaseSampler) -> None:
        """Start the study."""
        self._space = space
        directions = ["maximize" if way == "max" else "minimize" for way in DIRECTIONS]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._asked: dict[str, optuna.Trial] = {}

    def suggest(self, trial_id: str) -> Proposal:
        """Its next trial."""
        while True:
            trial = self._study.ask()
            values = self._space.suggest(trial)
            if allowed(values):
                break
            self._study.tell(trial, state=TrialState.FAIL)
        self._asked[trial_id] = trial
        config = {"trial_id": trial_id, "role": "search", "trial": values}
        return Proposal(dict(trial.params), config)

    def on_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a study of several objectives takes no reports."""

    def on_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell it."""
        trial = self._asked.pop(trial_id)
        if result["diverged"]:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, [result[name] for name in OBJECTIVES])


class RayScheduler:
    """A scheduler of Ray Tune's."""

    def __init__(self, scheduler: TrialScheduler) -> None:
        """Pass calls on to it; no controller stands behind them."""
        self._scheduler = scheduler

    def on_add(self, trial: Trial) -> None:
        """Tell it."""
        self._scheduler.on_trial_add(None, trial)

    def goes_on(self, trial: Trial, result: dict[str, Any]) -> bool:
        """Ask it."""
        action = self._scheduler.on_trial_result(None, trial, result)
        return bool(action != TrialScheduler.STOP)

    def on_complete(self, trial: Trial, result: dict[str, Any]) -> None:
        """Tell it."""
        self._scheduler.on_trial_complete(None, trial, result)


class SyneTuneScheduler:
    """A scheduler of Syne Tune's, as its Tuner calls it; all objectives are costs.

    Args:
        make: gives the scheduler for a list of metrics to minimise.
    """

    def __init__(self, make: Callable[[list[str]], Any]) -> None:
        """Make the scheduler."""
        from syne_tune.backend.trial_status import Trial as SyneTuneTrial  # noqa: PLC0415

        self._make_trial = SyneTuneTrial
        self._costs = [f"{name}_cost" for name in OBJECTIVES]
        self._scheduler = make(self._costs)
        self._trials: dict[str, Any] = {}

    def on_add(self, trial: Trial) -> None:
        """Tell it."""
        known = self._make_trial(len(self._trials), trial.config, datetime(2026, 1, 1))
        self._trials[trial.trial_id] = known
        self._scheduler.on_trial_add(known)

    def goes_on(self, trial: Trial, result: dict[str, Any]) -> bool:
        """Ask it."""
        known = self._trials[trial.trial_id]
        action = self._scheduler.on_trial_result(known, self._with_costs(result))
        if action == "STOP":
            self._scheduler.on_trial_remove(known)
        return bool(action != "STOP")

    def on_complete(self, trial: Trial, result: dict[str, Any]) -> None:
        """Tell it."""
        known = self._trials[trial.trial_id]
        if result["diverged"]:
            self._scheduler.on_trial_error(known)
        elif result["complete"]:
            self._scheduler.on_trial_complete(known, self._with_costs(result))

    def _with_costs(self, result: dict[str, Any]) -> dict[str, Any]:
        signs = [-1.0 if way == "max" else 1.0 for way in DIRECTIONS]
        costs = [sign * result[name] for sign, name in zip(signs, OBJECTIVES, strict=True)]
        return {**result, **dict(zip(self._costs, costs, strict=True))}


def quiet() -> None:
    """Keep off the screen what libraries say about slow or experimental search spaces."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", "Define-by-run function")
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
