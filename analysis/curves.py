"""How trials with a technique learn, and those without: medians and quartiles over samples."""

from __future__ import annotations

import pandas as pd

from analysis.factors import factors, searched_values
from analysis.fidelity import measured
from analysis.records import Records
from analysis.switches import switches

COLUMNS = (
    "technique",
    "on",
    "samples",
    "metric",
    "median",
    "low",
    "high",
    "trials",
    "share",
)

# Fewer trials than this make no quartiles, and no point of a curve.
FEWEST = 3


def technique_curves(records: Records) -> pd.DataFrame:
    """Trace each technique's trials, and those it is compared with; columns as in COLUMNS.

    One row a technique, side (`on`), metric and number of samples, in this order: the median and
    the quartiles `low` and `high` of the objectives, perplexity (`usage` times `codes`, see
    `fidelity.measured`) and recon_loss over the `trials` that reported there; `share` is their
    part of all that the side ever had.

    Early stopping leaves the good: a curve rises where bad trials end, and two sides that keep
    different shares are not alike. What compares them fairly is `effects`; curves tell when a
    technique takes hold. Points of fewer than FEWEST trials are left out, as is a technique that
    has none on one side. The baseline belongs to neither.
    """
    table = measured(records)
    metrics = [str(name) for name in table.columns if name not in ("trial_id", "samples")]
    trials = table["trial_id"].drop_duplicates().reset_index(drop=True)
    found = factors([records.configs[i] for i in trials], searched_values(records.spec))
    frames = []
    for switch in switches(found):
        sides = [
            _side(table[table["trial_id"].isin(trials[mask])], metrics)
            for mask in (switch.on, switch.off)
        ]
        if all(len(side) for side in sides):
            frames += [
                side.assign(technique=switch.technique, on=on)
                for side, on in zip(sides, (True, False), strict=True)
            ]
    if not frames:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _side(rows: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Median, quartiles and counts of each metric at each number of samples."""
    long = rows.melt(["trial_id", "samples"], metrics, "metric", "value").dropna(subset="value")
    grouped = long.groupby(["metric", "samples"])["value"]
    points = pd.DataFrame(
        {
            "median": grouped.median(),
            "low": grouped.quantile(0.25),
            "high": grouped.quantile(0.75),
            "trials": grouped.size(),
        }
    ).reset_index()
    whole = long.groupby("metric")["trial_id"].nunique().reindex(points["metric"])
    points["share"] = points["trials"] / whole.to_numpy()
    return points[points["trials"] >= FEWEST]
