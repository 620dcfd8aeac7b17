"""A run as one tidy table, a row for each report: what other tools read as parquet or CSV.

`vqtune records` writes it. The rows are built column by column, for a run can have a million.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import RunError
from analysis.flatten import parameters
from analysis.records import Records
from analysis.whole_file import whole

SUFFIXES = (".parquet", ".csv")
# Of a trial, on each of its rows.
_OF_TRIAL = ("trial_id", "role", "state", "reason")


def tidy(records: Records) -> pd.DataFrame:
    """Join the reports of a run to what its trials are; one row a report, trial after trial.

    A trial that has not reported yet has one row, in which all metrics are NaN. Columns:
        trial_id, role, state, reason: of the trial, as in `Records.trials`.
        last: whether this is the trial's last row, so that these are one row a trial.
        samples, and every other metric of the report, the seconds among them; NaN where absent.
        done, diverged, timestamp: of the report, the latter in Unix seconds.
        config.*: the trial's parameters under dotted names such as
            `config.codebook.respawn.period`; missing where the technique is off. Numbers are
            numbers and flags are flags; lists, and parameters of more than one kind, are JSON text.
    """
    reports, trials = records.reports, records.trials
    place = {trial_id: i for i, trial_id in enumerate(trials["trial_id"])}
    of_report = reports["trial_id"].map(place).to_numpy(dtype=np.int64)
    silent = np.setdiff1d(np.arange(len(trials)), of_report)
    rows = np.concatenate([np.arange(len(reports)), np.full(len(silent), -1)])
    of_trial = np.concatenate([of_report, silent])
    order = np.argsort(of_trial, kind="stable")
    rows, of_trial = rows[order], of_trial[order]

    columns: dict[str, Any] = {
        name: trials[name].astype("str").take(of_trial).array for name in _OF_TRIAL
    }
    columns["last"] = np.append(of_trial[1:] != of_trial[:-1], np.ones(min(len(rows), 1), bool))
    flags = ("done", "diverged")
    metrics = [name for name in map(str, reports) if name not in {"trial_id", "timestamp", *flags}]
    for name in (*metrics, "timestamp"):
        values = np.append(reports[name].to_numpy(), np.nan)  # -1 takes what stands at the end
        columns[name] = values[rows]
    for name in flags:
        columns[name] = np.append(reports[name].to_numpy(), False)[rows]
    configs = [parameters(records.configs[trial_id]) for trial_id in trials["trial_id"]]
    for name in dict.fromkeys(name for config in configs for name in config):
        of_one_kind = _of_one_kind([config.get(name) for config in configs])
        columns[name] = of_one_kind.take(of_trial).array
    return pd.DataFrame(columns)


def write_tidy(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as its suffix says, whole or not at all.

    Raises RunError for another suffix than those in SUFFIXES, a file that exists, or a place that
    cannot be written to.
    """
    check_out(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            if path.suffix == ".parquet":
                frame.to_parquet(part, index=False)
            else:
                frame.to_csv(part, index=False, lineterminator="\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def check_out(path: Path) -> None:
    """Raise RunError where `write_tidy` would write no such file."""
    if path.suffix not in SUFFIXES:
        raise RunError(f"{path}: found suffix {path.suffix!r}, allowed {' or '.join(SUFFIXES)}")
    if path.exists():
        raise RunError(f"{path}: exists; allowed: another name")


def _of_one_kind(values: list[Any]) -> pd.Series[Any]:
    """A parameter as one type, which parquet can hold and a reader can rely on; None is missing."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and all(abs(value or 0) < 2**63 for value in values):
        return pd.Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    if kinds != {str}:
        values = [None if value is None else json.dumps(value, default=str) for value in values]
    return pd.Series(values, dtype="str")
