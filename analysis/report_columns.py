"""The reports of many trials, gathered column by column.

A run can have a million of them, which as one dictionary each would fill the memory; `records`
adds a trial as soon as it is read.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.trial_folder import Trial


class ReportColumns:
    """Numbers of reports, in one array a metric.

    Args:
        metrics: columns that there are also where no report has them.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        """Begin without a report."""
        self._metrics = {name: array("d") for name in metrics}
        self._timestamps, self._done, self._diverged = array("d"), array("b"), array("b")
        self._rows: dict[str, range] = {}

    def add(self, trial: Trial) -> None:
        """Take over the reports of a trial that is not there yet."""
        before, reports = len(self._timestamps), trial.reports
        self._rows[trial.trial_id] = range(before, before + len(reports))
        self._timestamps.extend(report.timestamp for report in reports)
        self._done.extend(report.done for report in reports)
        self._diverged.extend(report.diverged for report in reports)
        for name in dict.fromkeys(name for report in reports for name in report.metrics):
            column = self._metrics.setdefault(name, array("d"))
            column.extend([math.nan] * (before - len(column)))
            column.extend(report.metrics.get(name, math.nan) for report in reports)

    def frame(self, trial_ids: Sequence[str]) -> pd.DataFrame:
        """All reports by trial, in the order of `trial_ids`; columns as in `Records.reports`."""
        counts = [len(self._rows[trial_id]) for trial_id in trial_ids]
        rows = np.fromiter(
            (row for trial_id in trial_ids for row in self._rows[trial_id]), np.int64, sum(counts)
        )
        columns = {
            "trial_id": pd.Series(list(trial_ids), dtype="str").repeat(counts).array,
            "timestamp": np.array(self._timestamps)[rows],
        }
        for name, column in self._metrics.items():
            found = np.full(len(rows), np.nan)
            found[: len(column)] = column
            columns[name] = found[rows]
        columns["done"] = np.array(self._done, dtype=np.bool_)[rows]
        columns["diverged"] = np.array(self._diverged, dtype=np.bool_)[rows]
        return pd.DataFrame(columns)
