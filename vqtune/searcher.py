"""Who proposes: Optuna through Ray Tune's OptunaSearch, with the baseline trial first.

The study lives in a journal inside the run. A trial stopped early is told as PRUNED without values,
a diverged or crashed one as FAIL, so that the sampler learns only what is true; trials that an
earlier session left running are taken up again under their own numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.spaces import Space

BASELINE, STUDY = "baseline", "vqtune"
METRICS, MODES = ("perplexity", "recon_loss"), ("max", "min")


def trial_name(number: int) -> str:
    """The id of the trial with this Optuna number: `t0001` is number 0."""
    return f"t{number + 1:04d}"


def open_journal(path: Path) -> optuna.storages.JournalStorage:
    """The run's Optuna storage; optuna-dashboard opens the same file.

    A last line that a full disk or a power cut left half-written is cut off: what is appended to it
    would be lost, and the journal unreadable for ever.
    """
    if path.exists():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            with path.open("rb+") as file:
                file.truncate(end)
    # A lock of its own file name; links would not do on every shared file system.
    lock = JournalFileOpenLock(str(path))
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def make_sampler(name: str, seed: int, proposed: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler of a name that SearchSettings allows.

    Args:
        name: as in SearchSettings.
        seed: the search's.
        proposed: trials proposed by earlier sessions, so that a resumed search does not draw again
            what the first session drew.
    """
    seed = int(np.random.SeedSequence([seed, proposed]).generate_state(1)[0])
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=24, seed=seed)
    if name in ("random", "grid"):  # a grid's points are enqueued, in order
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # In groups, parameters of one branch are modelled together and apart from other branches.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def proposals(space: Space) -> int:
    """How many trials a search has beside the baseline, over all sessions."""
    asked = space.search.trials - 1
    if space.search.sampler == "grid":
        return min(asked, len(space.enumerate_grid()))
    return asked


class VQSearch(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch over a Space, for `perplexity` up and `recon_loss` down.

    Args:
        space: what to propose from.
        storage: the run's journal.
        sampler: an Optuna sampler.
        settings: further entries of every trial's Tune config; "folder" holds the trial folders.
        baseline: the baseline's config, or None where it has ended already.
        unfinished: numbers of trials that an earlier session left running.
    """

    def __init__(
        self,
        space: Space,
        storage: optuna.storages.BaseStorage,
        sampler: optuna.samplers.BaseSampler,
        settings: Mapping[str, Any],
        baseline: Mapping[str, Any] | None,
        unfinished: Sequence[int] = (),
    ) -> None:
        """Open or create the study."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space=lambda trial: {"trial": space.suggest(trial)},
            metric=list(METRICS),
            mode=list(MODES),
            sampler=sampler,
            study_name=STUDY,
            storage=storage,
        )
        self._wanted = proposals(space)
        self._settings = dict(settings)
        self._baseline = baseline
        self._unfinished = list(unfinished)
        self._proposed = len(self.study.trials) - self._waiting()
        grid = space.search.sampler == "grid"
        points = space.enumerate_grid() if grid else space.first_points()
        # A session that was killed may have enqueued only the first of them.
        for point in points[len(self.study.trials) : self._wanted]:
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
            return self._config(BASELINE, BASELINE, values)
        if self._unfinished:
            number = self._unfinished.pop(0)
            stored = self.study.trials[number]
            # Suggesting again on the same trial gives back what it was given before.
            self._ot_trials[trial_id] = optuna.trial.Trial(self.study, stored._trial_id)
        elif self._proposed >= self._wanted:
            return str(Searcher.FINISHED)
        else:
            self._proposed += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            values = super().suggest(trial_id)["trial"]
        number = self._ot_trials[trial_id].number
        try:
            return self._config(trial_name(number), "search", values)
        except InputError:
            # A rare combination that the check of the space has not met: not a trial, go on.
            del self._ot_trials[trial_id]
            self.study.tell(number, state=TrialState.FAIL)
            self._proposed -= 1
            return self.suggest(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how the trial ended."""
        trial = self._ot_trials.pop(trial_id, None)
        if trial is not None:
            state, values = outcome(result, error)
            self.study.tell(trial.number, values, state=state)

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

    def _waiting(self) -> int:
        return sum(trial.state == TrialState.WAITING for trial in self.study.trials)


def outcome(result: Mapping[str, Any] | None, error: bool) -> tuple[TrialState, list[float] | None]:
    """How a trial with this last report ended, in Optuna's words."""
    if error or not result or result["diverged"]:
        return TrialState.FAIL, None
    if not result["complete"]:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE, [result[metric] for metric in METRICS]
