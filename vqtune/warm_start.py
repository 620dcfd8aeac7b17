"""Begin a search with what an earlier one has found: its finished trials, told to the new study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import NSGAIISampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from analysis.errors import RunError
from analysis.records import find_run, read_spec
from trainables.errors import InputError
from vqtune.journal import UNFIT, WARM, find_study, in_words, open_journal
from vqtune.session import first_difference
from vqtune.spaces import Space
from vqtune.stored_trial import fitted

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class WarmStart:
    """Finished trials of another run that fit a space, and how many there are that do not.

    `differs` names something that all of them had otherwise, such as the data; empty for nothing.
    """

    run: Path
    trials: list[FrozenTrial]
    left_out: int
    differs: str = ""

    @property
    def told(self) -> str:
        """In words."""
        return (
            f"warm start from {self.run.name}: {len(self.trials)} trials taken, "
            f"{self.left_out} do not fit this space{self.differs}"
        )

    def add(self, study: optuna.Study) -> bool:
        """Add the trials that are not there yet; False where an earlier session has added all."""
        if WARM in study.user_attrs:
            return False
        there = {trial.user_attrs.get(WARM, {}).get("number") for trial in study.trials}
        for trial in self.trials:
            if trial.user_attrs[WARM]["number"] not in there:
                study.add_trial(trial)
        study.set_user_attr(WARM, {"run": self.run.name, "trials": len(self.trials)})
        return True


def find_warm_start(name_or_path: str) -> Path:
    """The folder of the run to take trials from."""
    try:
        return find_run(name_or_path).resolve()
    except RunError as error:
        raise InputError(str(error), "--warm-start") from None


def read_warm_start(run: Path, space: Space) -> WarmStart:
    """Read another run's trials without a write.

    Raises:
        InputError: a run with other objectives, or without a readable journal.
    """
    path = run / "optuna.journal"
    try:
        spec = read_spec(run)
    except RunError as error:
        raise InputError(str(error), "--warm-start") from None
    mine, theirs = space.search.objectives, spec["objectives"]
    if theirs != mine:
        raise InputError(
            f"the objectives of {run.name} are {in_words(theirs)}; allowed: a run with those of "
            f"this search, {in_words(mine)}",
            "--warm-start",
        )
    if not path.is_file() or not isinstance(spec.get("space"), dict):
        raise InputError(
            f"{run} has no space and no {path.name}; allowed: the run of a search", "--warm-start"
        )
    before = Space.from_dict(spec["space"], str(run / "spec.yaml"))
    study = find_study(open_journal(path), theirs, path)
    found = study.get_trials(deepcopy=False, states=_FINISHED) if study is not None else []
    found = [trial for trial in found if UNFIT not in trial.user_attrs]
    order = [list(theirs).index(name) for name in mine]
    held = before.search.constraint == space.search.constraint
    taken = [_taken(trial, run.name, space, order, held) for trial in found]
    fitting = [trial for trial in taken if trial is not None]
    return WarmStart(run, fitting, len(found) - len(fitting), _difference(space, before))


def _difference(now: Space, then: Space) -> str:
    """What their values may not be comparable for; the baselines have all that is no technique."""
    mine, theirs = (space.baseline().to_dict() | {"seed": None} for space in (now, then))
    if mine == theirs:
        return ""
    path, here, there = first_difference(mine, theirs, "parameters")
    return f"; it had {path} {there!r}, here it is {here!r}"


def _taken(
    trial: FrozenTrial, run: str, space: Space, order: list[int], held: bool
) -> FrozenTrial | None:
    fit = fitted(space, trial.params)
    if fit is None:
        return None
    complete = trial.state == TrialState.COMPLETE
    # NSGA-II breeds from a population, which without a generation they would not be in.
    bred = complete and space.search.sampler == "nsga2"
    generation = {NSGAIISampler._get_generation_key(): 0} if bred else {}
    try:
        return create_trial(
            state=trial.state,
            values=[trial.values[i] for i in order] if complete else None,
            params=trial.params,
            distributions=fit[1],
            user_attrs={WARM: {"run": run, "number": trial.number}},
            system_attrs=generation,
            # Held against that run's baseline; another constraint says nothing here.
            constraints=trial.constraints if held else None,
        )
    except (TypeError, ValueError):  # an entry of the journal that Optuna has not made
        return None
