"""At which number of samples trials are compared, and what they had reached there.

With early stopping most trials have only the first rungs. `importance`, `effects` and
`interactions` compare all at one number of samples; `curves` shows all numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.front import objectives
from analysis.records import Records

# A third of the trials, since with the usual reduction factor of 3 that many pass the first rung.
# Later figures say more about the end (on recorded curves the rank correlation of perplexity with
# its final value was 0.5 at 1/16 of the budget and 0.8 at half of it); those of fewer trials say
# little, and most about what the survivors have in common.
ENOUGH_SHARE = 1 / 3
ENOUGH = 24
# Larger runs are sampled: what is estimated from so many trials is sure enough, and quick.
MOST = 1000


@dataclass(frozen=True)
class Comparison:
    """What trials had reached at one number of samples.

    Attributes:
        metric: the metric compared.
        samples: the number of samples; NaN where nothing can be compared.
        values: the metric by trial_id, finite.
        note: what to know about it, in words; may be empty.

    """

    metric: str
    samples: float
    values: pd.Series[float]
    note: str


def measured(records: Records) -> pd.DataFrame:
    """Tabulate the search's trials at each number of samples at which trials report.

    One row a trial and number of samples, the baseline left out: no sampler chose it. Columns:
    trial_id, samples, the objectives, perplexity and recon_loss; NaN where a value is not finite
    or the trial had diverged. Batches that do not divide the time between two reports make trials
    report a little later than others; such reports count for the same number of samples, the least
    of them. At most MOST trials, drawn at random.

    `perplexity` is `usage` times `codes` where both are there, the one that a trial is heading
    for, as in the rungs of early stopping: a codebook that has yet to grow would look collapsed.
    At full budget the two are the same.
    """
    names = list(
        dict.fromkeys(
            [*(goal.name for goal in objectives(records.spec)), "perplexity", "recon_loss"]
        )
    )
    search = records.trials.loc[records.trials["role"] == "search", "trial_id"]
    if len(search) > MOST:
        search = search.sample(MOST, random_state=0)
    rows = records.reports[records.reports["trial_id"].isin(search)]
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *names])))
    heading = (rows["usage"] * rows["codes"]).astype("float64")
    rows = rows.assign(perplexity=heading.fillna(rows["perplexity"].astype("float64")))
    values = rows[names].astype("float64")
    sound = np.isfinite(values.to_numpy()) & ~rows["diverged"].to_numpy(dtype=bool)[:, None]
    table = values.where(sound).assign(trial_id=rows["trial_id"], samples=_levels(rows))
    once = table.drop_duplicates(["trial_id", "samples"], keep="last", ignore_index=True)
    return once[["trial_id", "samples", *names]]


def comparison(records: Records, table: pd.DataFrame, metric: str) -> Comparison:
    """Choose the number of samples at which to compare a metric of `table`, `measured`'s.

    It is the largest that at least a third of the trials that have any value have reached, and at
    least ENOUGH of them (all, where there are fewer). All that have reached it count, also those
    that were stopped there.
    """
    rows = table[table[metric].notna()]
    reached = rows.groupby("samples")["trial_id"].nunique()
    trials = rows["trial_id"].nunique()
    enough = max(math.ceil(trials * ENOUGH_SHARE), min(trials, ENOUGH))
    fit = reached.index[reached >= enough]
    if not len(fit) or not trials:
        return Comparison(metric, math.nan, pd.Series(dtype="float64"), f"no trial has {metric}")
    samples = float(max(fit))
    values = rows[rows["samples"] == samples].set_index("trial_id")[metric]
    told = []
    budget = records.spec.get("samples")
    if isinstance(budget, (int, float)) and samples < budget:
        told.append(
            f"{len(values)} of {trials} trials came to {samples / budget:.0%} of the samples"
        )
        if metric == "perplexity":
            told.append("perplexity is usage x codes")
    diverged = records.trials.loc[
        (records.trials["state"] == "diverged") & (records.trials["role"] == "search"), "trial_id"
    ]
    lost = int((~diverged.isin(values.index)).sum())
    if lost:
        told.append(f"{lost} diverged before")
    return Comparison(metric, samples, values, "; ".join(told))


def _levels(rows: pd.DataFrame) -> pd.Series[float]:
    """The number of samples that each report counts for: the least of those close to its own.

    Close is within half of the usual distance between a trial's reports.
    """
    samples = rows["samples"].astype("float64")
    if samples.empty:
        return samples
    step = float(samples.groupby(rows["trial_id"]).diff().fillna(samples).median())
    found = np.sort(samples.unique())
    starts = [found[0]]
    for value in found:
        if value - starts[-1] > step / 2:
            starts.append(value)
    places = np.searchsorted(starts, samples.to_numpy(), side="right") - 1
    return pd.Series(np.asarray(starts)[places], index=samples.index)
