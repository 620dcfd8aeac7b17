"""From the folder that a search writes to trial records, the input of everything else in analysis.

A run is read as it lies on the disk, also while it is being written or after it was killed; only
its spec must be whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import RunError
from analysis.flatten import parameters
from analysis.report_columns import ReportColumns
from analysis.reported import REPORTED
from analysis.run_entries import check_entries
from analysis.run_yaml import read_yaml
from analysis.trial_folder import Trial, read_trial

# Columns that `reports` and `trials` have in every run, also in one without a report.
METRICS = ("samples", *REPORTED, "training_iteration")

_RUNS_SHOWN = 10


@dataclass(frozen=True)
class Records:
    """What a run holds.

    Attributes:
        run: the run's folder.
        spec: the resolved spec, as `spec.yaml` holds it.
        reports: one row a report, by trial and then by samples, which strictly increase within a
            trial. Columns: trial_id, the METRICS and further numeric metrics as floats (those of a
            nested dict as `streams/0/perplexity`), and the flags done and diverged.
        trials: one row a trial, in the order of their first reports. Columns: trial_id, role
            (`baseline`, `search`, `ablation` or `confirm`), state (see `trial_folder.Trial`),
            folder (a Path), reason (why it ended, may be empty), the metrics of the last report
            (NaN before the first), and the trial's parameters under dotted names such as
            `config.codebook.size`; those of a technique that is off are missing, lists are tuples.
        configs: the nested config of each trial in `trials`, by trial_id.
        skipped: one line for each trial folder that could not be read and is left out.

    """

    run: Path
    spec: dict[str, Any]
    reports: pd.DataFrame
    trials: pd.DataFrame
    configs: Mapping[str, dict[str, Any]]
    skipped: tuple[str, ...]


def find_run(name_or_path: str, runs: Path = Path("runs")) -> Path:
    """Find a run's folder, given as that folder or as its name under `runs`.

    Raises RunError, naming what was looked for and the runs that exist, where there is none; and
    for a run with entries that `check_entries` refuses.
    """
    candidates = (Path(name_or_path), runs / name_or_path)
    for folder in candidates:
        if _is_run(folder):
            check_entries(folder)
            return folder if folder.name not in ("", "..") else folder.resolve()
    looked = " or ".join(str(folder / "spec.yaml") for folder in dict.fromkeys(candidates))
    raise RunError(f"no run {name_or_path!r}: looked for {looked}; {_existing(runs)}")


def read_spec(run: Path) -> dict[str, Any]:
    """Read a run's resolved spec; raises RunError where it will not do or names no objectives."""
    path = run / "spec.yaml"
    spec = read_yaml(path)
    objectives = spec.get("objectives")
    if (
        not isinstance(objectives, dict)
        or not objectives
        or any(direction not in ("max", "min") for direction in objectives.values())
    ):
        raise RunError(
            f"{path}: objectives: found {objectives!r}, allowed a mapping of metrics to max or min"
        )
    return spec


def read_run(run: Path) -> Records:
    """Read a run's folder; raises RunError for a bad spec, and for nothing that a trial left."""
    spec = read_spec(run)
    trials: dict[str, Trial] = {}
    reports = ReportColumns(METRICS)
    skipped: list[str] = []
    for folder in _trial_folders(run):
        try:
            trial = read_trial(folder, list(spec["objectives"]))
        except RunError as error:
            skipped.append(str(error))
            continue
        if trial.trial_id in trials:
            first = trials[trial.trial_id].folder.name
            skipped.append(f"{folder.name}: trial {trial.trial_id} was read from {first} already")
            continue
        reports.add(trial)
        trials[trial.trial_id] = replace(trial, reports=trial.reports[-1:])
    ordered = sorted(trials.values(), key=lambda trial: (trial.started, trial.trial_id))
    return Records(
        run=run,
        spec=spec,
        reports=reports.frame([trial.trial_id for trial in ordered]),
        trials=_trials_frame(ordered),
        configs={trial.trial_id: trial.config for trial in ordered},
        skipped=tuple(skipped),
    )


def _is_run(folder: Path) -> bool:
    try:
        return (folder / "spec.yaml").is_file()
    except OSError:  # a name too long for the file system, a folder that may not be entered
        return False


def _existing(runs: Path) -> str:
    names = sorted(path.parent.name for path in runs.glob("*/spec.yaml"))
    if not names:
        return f"there are no runs in {runs}"
    more = f" and {len(names) - _RUNS_SHOWN} more" if len(names) > _RUNS_SHOWN else ""
    return f"runs in {runs}: {', '.join(names[:_RUNS_SHOWN])}{more}"


def _trial_folders(run: Path) -> list[Path]:
    folder = run / "trials"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _trials_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    first = ("trial_id", "role", "state", "folder", "reason")
    rows = [
        {name: getattr(trial, name) for name in first}
        | (trial.reports[-1].metrics if trial.reports else {})
        for trial in trials
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    metrics = [name for name in dict.fromkeys([*METRICS, *names]) if name not in first]
    frame = pd.DataFrame(rows, columns=[*first, *metrics])
    frame = frame.astype(dict.fromkeys(metrics, "float64"))
    return frame.join(pd.DataFrame([parameters(trial.config) for trial in trials], frame.index))
