"""Who proposes: Optuna through Ray Tune's OptunaSearch, with the baseline trial first.

The study lives in a journal inside the run. What is proposed depends on what the journal says, the
seed and the trial's number, not on how many sessions there were; trials that an earlier session
left running are taken up again under their own numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.early_tpe import EarlyTPE, FirstRung
from vqtune.journal import STUDY, UNFIT, WARM, proposed
from vqtune.outcomes import Yardstick, tell
from vqtune.packing import PACKED, LanesFree, Packing
from vqtune.scheduler import first_rung
from vqtune.spaces import Space

BASELINE = "baseline"


def trial_name(number: int) -> str:
    """The id of the trial with this Optuna number: `t0001` is number 0."""
    return f"t{number + 1:04d}"


def make_sampler(
    name: str, seed: int, number: int = 0, rung: FirstRung | None = None
) -> optuna.samplers.BaseSampler:
    """The sampler that proposes one trial; it keeps nothing in mind that is not in the study.

    Args:
        name: as in SearchSettings.
        seed: the search's.
        number: the trial's, so that each draws afresh.
        rung: where TPE compares trials; None for their ends.
    """
    seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=24, seed=seed)
    if name in ("random", "grid"):  # a grid's points are enqueued, in order
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # In groups, parameters of one branch are modelled together and apart from other branches.
        # A liar would write to the study that it is given, which at a rung is one made for it.
        tpe = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=rung is None
        )
    return EarlyTPE(tpe, rung) if rung is not None else tpe


def proposals(space: Space) -> int:
    """How many trials a search has beside the baseline, over all sessions."""
    asked = space.search.trials - 1
    if space.search.sampler == "grid":
        return min(asked, len(space.enumerate_grid()))
    return asked


class VQSearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over a Space, for the space's objectives.

    Args:
        space: what to propose from.
        storage: the run's journal.
        seed: the sampler's.
        settings: further entries of every trial's Tune config; "folder" holds the trial folders.
        baseline: the baseline's config, or None where it has ended already.
        unfinished: numbers of trials that an earlier session left running.
        yardstick: what is known of the baseline; by default nothing.
        spent: whether no new trial may start.
        lanes_free: lanes that are free in the stacks that run, by signature; some of the proposals
            then join them, as `packing` has it. None leaves the sampler free.
    """

    def __init__(
        self,
        space: Space,
        storage: optuna.storages.BaseStorage,
        seed: int,
        settings: Mapping[str, Any],
        baseline: Mapping[str, Any] | None = None,
        unfinished: Sequence[int] = (),
        yardstick: Yardstick | None = None,
        spent: Callable[[], object] = lambda: False,
        lanes_free: LanesFree | None = None,
    ) -> None:
        """Open or create the study."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._objectives = space.search.objectives
        super().__init__(
            space=lambda trial: {"trial": space.suggest(trial)},
            metric=list(self._objectives),
            mode=list(self._objectives.values()),
            sampler=make_sampler(space.search.sampler, seed),
            study_name=STUDY,
            storage=storage,
        )
        self._sampler_name, self._sampler_seed = space.search.sampler, seed
        self._wanted = proposals(space)
        self._settings = dict(settings)
        self._baseline = baseline
        self._baseline_id = ""
        self._unfinished = list(unfinished)
        self._yardstick = yardstick or Yardstick(space.search.constraint)
        self._rung = _first_rung(space)
        self._spent = spent
        self._packing = Packing(lanes_free, seed) if lanes_free is not None else None
        self._proposed = len(proposed(self.study))
        grid = space.search.sampler == "grid"
        points = space.enumerate_grid() if grid else space.first_points()
        # A session that was killed may have enqueued only the first of them.
        there = sum(WARM not in t.user_attrs for t in self.study.get_trials(deepcopy=False))
        for point in points[there : self._wanted]:
            self.study.enqueue_trial(point)

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        study: optuna.Study = self._ot_study
        return study

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's Tune config; trial_id is Tune's own."""
        if self._baseline is not None:
            values, self._baseline = self._baseline, None
            self._baseline_id = trial_id
            return self._config(BASELINE, BASELINE, values)
        if self._unfinished:
            number = self._unfinished.pop(0)
            self._propose_as(number)
            stored = self.study.trials[number]
            # Suggesting again on the same trial gives back what it was given before.
            trial = self._ot_trials[trial_id] = optuna.trial.Trial(self.study, stored._trial_id)
            self._draw_past(trial, stored)
        elif self._proposed >= self._wanted or self._spent():
            return str(Searcher.FINISHED)
        else:
            self._proposed += 1
            self._pack()
            self._propose_as(self._next_number())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            values = super().suggest(trial_id)["trial"]
        number = self._ot_trials[trial_id].number
        try:
            config = self._config(trial_name(number), "search", values)
        except InputError as error:
            # A rare combination that the check of the space has not met: not a trial, go on.
            self._ot_trials.pop(trial_id).set_user_attr(UNFIT, str(error))
            self.study.tell(number, state=TrialState.FAIL)
            self._proposed -= 1
            return self.suggest(trial_id)
        if self._packing is not None:
            parameters = self._ot_trials[trial_id].params
            self._packing.note(parameters, TrialConfig.from_dict(config["trial"]))
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn how far the baseline is, and what a trial has come to at the first rung."""
        if trial_id == self._baseline_id:
            self._yardstick.hear(result)
        elif self._rung is not None:
            self._rung.note(self._ot_trials[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how the trial ended."""
        if trial_id == self._baseline_id and result and not error:
            self._yardstick.hear(result)
        trial = self._ot_trials.pop(trial_id, None)
        if trial is not None:
            if self._rung is not None and result and not error:
                self._rung.note(trial, result)
            tell(self.study, trial, result, error, self._objectives, self._yardstick)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to pickle: the journal holds the study."""
        Path(checkpoint_path).touch()

    def _config(self, name: str, role: str, values: Mapping[str, Any]) -> dict[str, Any]:
        trial = TrialConfig.from_dict(values, where=f"trial {name}")
        folder = str(Path(self._settings["folder"]) / name)
        given = {"trial_id": name, "role": role, "trial": trial.to_dict()}
        return {**self._settings, **given, "folder": folder}

    def _pack(self) -> None:
        """Hold the next trial's shapes, where it is to join a stack and no other trial waits."""
        if self._packing is None:
            return
        number = self._next_number()
        if number < len(self.study.get_trials(deepcopy=False)):
            return
        signature = self._packing.choose(number, proposed(self.study))
        if signature is not None:
            shape = self._packing.shape(signature)
            self.study.enqueue_trial(shape, user_attrs={PACKED: signature})

    def _propose_as(self, number: int) -> None:
        name, seed = self._sampler_name, self._sampler_seed
        self.study.sampler = make_sampler(name, seed, number, self._rung)

    def _draw_past(self, trial: optuna.Trial, stored: optuna.trial.FrozenTrial) -> None:
        """Bring the sampler to where it was when a session was killed between two parameters."""
        fixed = stored.system_attrs.get("fixed_params", {})
        for name, distribution in stored.distributions.items():
            if (
                name not in fixed
                and not distribution.single()
                and name not in trial.relative_params
            ):
                self.study.sampler.sample_independent(self.study, stored, name, distribution)

    def _next_number(self) -> int:
        """The number of the trial that Optuna gives next: one that waits, or a new one."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = (trial.number for trial in trials if trial.state == TrialState.WAITING)
        return next(waiting, len(trials))


def _first_rung(space: Space) -> FirstRung | None:
    """Where TPE compares trials: as all of them come there, where early stopping begins."""
    settings = space.search
    if settings.sampler != "tpe" or settings.early_stopping == "none":
        return None
    grace = first_rung(settings, space.baseline().training.samples)
    return FirstRung(grace, grace * settings.reduction_factor, settings.objectives)
