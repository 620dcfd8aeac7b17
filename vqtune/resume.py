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

from analysis.records import Records, read_run
from vqtune.pareto_asha import ParetoASHA
from vqtune.run_folder import RunFolder
from vqtune.searcher import BASELINE, METRICS, STUDY, outcome, trial_name

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

    `proposed` counts the trials that Optuna knows, the unfinished ones among them.
    """

    ended: list[PastTrial]
    unfinished: list[int]
    proposed: int
    records: Records

    @property
    def baseline_ended(self) -> bool:
        """Whether the baseline needs no more training."""
        return any(trial.trial_id == BASELINE for trial in self.ended)

    def replay(self, scheduler: Any) -> None:
        """Fill the scheduler's rungs, in the order in which the reports came."""
        if not isinstance(scheduler, ParetoASHA):
            return
        reports = self.records.reports.sort_values("timestamp", kind="stable")
        for report in reports.to_dict("records"):
            # Tune asks no scheduler about the report with which a trial ends by itself.
            if not (report.get("complete") or report.get("diverged")):
                trial_id, named = report["trial_id"], {str(k): v for k, v in report.items()}
                scheduler.hear(trial_id, named, baseline=trial_id == BASELINE)


def take_up(run: RunFolder, storage: optuna.storages.BaseStorage) -> Past:
    """Read the run's records and tell Optuna the outcomes that it has not heard."""
    records = read_run(run.path)
    ended = ended_trials(records)
    unfinished, proposed = [], 0
    if STUDY in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=STUDY, storage=storage)
        unfinished, proposed = _catch_up(study, ended), len(study.get_trials(deepcopy=False))
    return Past(list(ended.values()), unfinished, proposed, records)


def ended_trials(records: Records) -> dict[str, PastTrial]:
    """The trials that need no more training, by trial_id."""
    return {
        row["trial_id"]: PastTrial(
            row["trial_id"],
            row["state"],
            {str(k): v for k, v in row.items()} if math.isfinite(row["samples"]) else {},
            records.configs[row["trial_id"]],
        )
        for row in records.trials.to_dict("records")
        if row["state"] in _ENDED
    }


def _catch_up(study: optuna.Study, ended: dict[str, PastTrial]) -> list[int]:
    unfinished = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        past = ended.get(trial_name(trial.number))
        if past is None:
            unfinished.append(trial.number)
            continue
        last = {name: past.last.get(name) for name in METRICS}
        report = {
            **last,
            "complete": past.state == "complete",
            "diverged": past.state == "diverged",
        }
        state, values = outcome(report, past.state == "failed")
        study.tell(trial.number, values, state=state)
    return unfinished
