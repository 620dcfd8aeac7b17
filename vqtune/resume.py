"""What an earlier session of a run left behind: the ended trials, and the ones to go on with.

The run's own records decide, not a pickle of the scheduler: Optuna is told what it missed, rungs
are filled from the recorded reports, unfinished trials go on from their checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from analysis.flatten import row_dicts
from analysis.records import Records, read_run
from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.journal import find_study, open_journal, proposed
from vqtune.outcomes import Yardstick, tell
from vqtune.pareto_asha import ParetoASHA
from vqtune.run_folder import RunFolder
from vqtune.searcher import BASELINE, trial_name
from vqtune.spaces import Space
from vqtune.stored_trial import fitted

# The study's attribute that tells whose it is.
RUN = "run"

_ENDED = {"complete", "stopped", "diverged", "failed"}


@dataclass(frozen=True)
class PastTrial:
    """A trial that has ended; `last` is empty where it never reported."""

    trial_id: str
    state: str
    last: dict[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Past:
    """The state of a run: trials that ended, numbers of those that did not, all reports.

    `proposed` counts the trials that the search has proposed, the unfinished ones among them.
    """

    ended: list[PastTrial]
    unfinished: list[int]
    proposed: int
    records: Records

    @property
    def baseline_ended(self) -> bool:
        """Whether the baseline needs no more training."""
        return any(trial.trial_id == BASELINE for trial in self.ended)

    @property
    def lasts(self) -> dict[str, dict[str, Any]]:
        """The last report of each trial, ended or not, by trial_id."""
        return {row["trial_id"]: row for row in row_dicts(self.records.trials)}

    def yardstick(self) -> Yardstick:
        """What the search's trials are held against, with what the baseline has reported."""
        yardstick = Yardstick(self.records.spec["space"]["search"].get("constraint"))
        complete = any(t.trial_id == BASELINE and t.state == "complete" for t in self.ended)
        reports = self.records.reports[self.records.reports["trial_id"] == BASELINE]
        for i, report in enumerate(row_dicts(reports), start=1):
            yardstick.hear(report | {"complete": complete and i == len(reports)})
        return yardstick

    def replay(self, scheduler: Any) -> None:
        """Fill the scheduler's rungs, in the order in which the reports came."""
        if not isinstance(scheduler, ParetoASHA):
            return
        reports = self.records.reports.sort_values("timestamp", kind="stable")
        for report in row_dicts(reports):
            # Tune asks no scheduler about the report with which a trial ends by itself.
            if not (report.get("complete") or report.get("diverged")):
                trial_id = report["trial_id"]
                scheduler.hear(trial_id, report, baseline=trial_id == BASELINE)


def journal_of(run: RunFolder) -> optuna.storages.JournalStorage:
    """The run's journal; raises InputError where it is no journal, or gone while trials are there.

    A search that was killed before its first trial may have left none.
    """
    if not run.journal.exists():
        tried = [path.name for path in run.trials.glob("*") if path.name != BASELINE]
        if tried:
            raise InputError(
                f"is not there, but trials are, such as {min(tried)}; allowed: the journal that "
                "this run has written",
                str(run.journal),
            )
    return open_journal(run.journal)


def read_past(run: RunFolder, storage: optuna.storages.BaseStorage) -> Past:
    """Read the run's records beside its journal, without a write.

    Raises:
        InputError: the journal is not the one that this run has written.
    """
    return _read(run, storage)[0]


def take_up(run: RunFolder, storage: optuna.storages.BaseStorage) -> Past:
    """Read the run's records and tell Optuna the outcomes that it has not heard."""
    past, study = _read(run, storage)
    if study is not None:
        _catch_up(study, past)
    return past


def _read(run: RunFolder, storage: optuna.storages.BaseStorage) -> tuple[Past, optuna.Study | None]:
    records = read_run(run.path)
    study = find_study(storage, records.spec["objectives"], run.journal)
    known = proposed(study) if study is not None else []
    _check_journal(run, records, study, known)
    ended = ended_trials(records)
    running = [trial.number for trial in known if trial.state == TrialState.RUNNING]
    unfinished = [number for number in running if trial_name(number) not in ended]
    return Past(list(ended.values()), unfinished, len(known), records), study


def _check_journal(
    run: RunFolder,
    records: Records,
    study: optuna.Study | None,
    known: list[optuna.trial.FrozenTrial],
) -> None:
    """Refuse a journal that was cut back, or that is another run's."""
    allowed = "allowed: the journal that this run has written"
    token = study.user_attrs.get(RUN) if study is not None else None
    if token is not None and token != records.spec.get("token"):
        raise InputError(f"was written by another run; {allowed}", str(run.journal))
    names = {trial_name(trial.number) for trial in known}
    tried = records.trials.loc[records.trials["role"] == "search", "trial_id"]
    missing = sorted(set(tried) - names)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"lacks {missing[0]}{more}, which the run has trained; {allowed}", str(run.journal)
        )
    # All others have all their parameters, or they would not have ended.
    running = [trial for trial in known if trial.state == TrialState.RUNNING]
    begun = [trial for trial in running if trial_name(trial.number) in records.configs]
    space = Space.from_dict(records.spec["space"], str(run.spec)) if begun else None
    for trial in begun:
        name = trial_name(trial.number)
        fit = fitted(space, trial.params) if space is not None else None
        if fit is None or TrialConfig.from_dict(fit[0]).to_dict() != records.configs[name]:
            raise InputError(
                f"has other parameters of {name} than the run has trained; {allowed}",
                str(run.journal),
            )


def ended_trials(records: Records) -> dict[str, PastTrial]:
    """The trials that need no more training, by trial_id."""
    return {
        row["trial_id"]: PastTrial(
            row["trial_id"],
            row["state"],
            row if math.isfinite(row["samples"]) else {},
            records.configs[row["trial_id"]],
        )
        for row in row_dicts(records.trials)
        if row["state"] in _ENDED
    }


def _catch_up(study: optuna.Study, past: Past) -> None:
    ended = {trial.trial_id: trial for trial in past.ended}
    objectives, yardstick = past.records.spec["objectives"], past.yardstick()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        found = ended.get(trial_name(trial.number))
        if found is not None:
            state = {"complete": found.state == "complete", "diverged": found.state == "diverged"}
            known = optuna.trial.Trial(study, trial._trial_id)
            failed = found.state == "failed"
            tell(study, known, found.last | state, failed, objectives, yardstick)
