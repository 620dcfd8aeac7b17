"""The complete trials of a run in order, the best first, each with the reason for its place.

`vqtune front` prints it, `vqtune export` and `vqtune confirm` pick from it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.front import Direction, pareto_ranks
from analysis.placement import (
    Placement,
    contributions,
    gains,
    greedy,
    knee,
    own_volumes,
    scaled,
    volume,
)
from analysis.reasons import reasons
from analysis.records import Records
from analysis.technique import PLAIN, technique_summary
from analysis.terms import Terms, check_metrics, terms

# Further objectives stand before `reason`.
COLUMNS = (
    "position",
    "trial_id",
    "role",
    "rank",
    "on_front",
    "feasible",
    "violation",
    "knee",
    "hypervolume",
    "gain",
    "score",
    "perplexity",
    "perplexity_x",
    "recon_loss",
    "recon_loss_x",
    "harmless",
    "active_codes",
    "usage",
    "bits_per_frame",
    "seconds",
    "reason",
    "technique",
    "config",
)

Values = npt.NDArray[np.float64]


def ranking(records: Records, asked: Terms | None = None) -> pd.DataFrame:
    """Order the complete trials of a run, the baseline among them, the best first.

    First those that hold the constraint, by non-dominated rank. Those of rank 0, the front, are
    placed so that each next one adds most hypervolume to those before it, beyond the baseline
    (`placement.scaled` says where a missing one is made up for), or with weights by the weighted
    mean of the scaled objectives; the other ranks go by what each trial dominates itself. Then
    those that violate the constraint, the least violation first (Deb 2002). What is still equal
    goes by trial_id.

    Columns, as in COLUMNS, and `asked`'s further objectives:
        position: from 1.
        rank, on_front: non-dominated rank among the complete trials, 0 for the front. A trial that
            holds the constraint is held only against others that do; objectives that are not
            finite are behind all ranks.
        feasible, violation: whether it holds the constraint, and how far it is beyond the limit in
            the metric's units, 0 or less where it holds.
        knee: the one trial of the front that gives most for what it gives up; see `placement.knee`.
        hypervolume: what no other trial dominates, as a share of the front's hypervolume.
        gain: what it adds to the hypervolume of those before it, as such a share. Both shares are
            of the front of those that hold the constraint, and NaN for those that do not.
        score: weighted mean of the objectives, 0 at the reference and 1 at the best; NaN without
            weights.
        perplexity_x, recon_loss_x: ratios to the baseline's values, NaN without one.
        harmless: whether recon_loss is at most the baseline's.
        reason: why it stands here, in words.
        technique: what differs from the baseline, or from the plain VQ-VAE without one, in words.
        config: the nested config.

    Raises RunError for a metric in `asked` that the run does not have.
    """
    asked = asked or terms(records.spec)
    check_metrics(asked, records)
    trials = records.trials[records.trials["state"] == "complete"].sort_values("trial_id")
    table = _described(trials.reset_index(drop=True), records)
    more = [name for name in asked.names if name not in COLUMNS]
    columns = [*COLUMNS[:-3], *more, *COLUMNS[-3:]]
    values = table.reindex(columns=asked.names).to_numpy(dtype=np.float64)
    values = values * np.where(np.array(asked.directions) == "max", 1.0, -1.0)
    baseline = np.flatnonzero(table["role"] == "baseline")[:1]

    limited = _baseline_value(table, asked)
    table["violation"] = _violations(table, asked, limited)
    table["feasible"] = table["violation"] <= 0
    table["rank"] = _ranks(values, table["feasible"].to_numpy(dtype=np.bool_))
    table["on_front"] = (table["rank"] == 0) & np.isfinite(values).all(axis=1)
    order = _placed(table, values, values[baseline[0]] if len(baseline) else None, asked)
    ranked = table.iloc[order].reset_index(drop=True)
    ranked["position"] = np.arange(1, len(ranked) + 1)
    ranked["reason"] = reasons(ranked, values[order], asked, limited)
    return ranked.reindex(columns=columns)


def front_table(records: Records, asked: Terms | None = None) -> pd.DataFrame:
    """The front, best first, and the baseline, which is a row whether or not it is on the front.

    There is no such row where it did not complete. Columns as in `ranking`.
    """
    ranked = ranking(records, asked)
    return ranked[ranked["on_front"] | (ranked["role"] == "baseline")].reset_index(drop=True)


def best(records: Records, n: int, asked: Terms | None = None) -> pd.DataFrame:
    """Pick the first `n` trials of the front in the order of `ranking`; its columns.

    None that breaks the constraint, unless all of the front do.
    """
    ranked = ranking(records, asked)
    front = ranked[ranked["on_front"]]
    holding = front[front["feasible"]]
    return (front if holding.empty else holding).head(n).reset_index(drop=True)


def top_table(records: Records, top: int | None, asked: Terms | None = None) -> pd.DataFrame:
    """The front's best `top` trials, all where None, with the baseline beside them."""
    table = front_table(records, asked)
    if top is None:
        return table
    chosen = table["on_front"] & (table["on_front"].cumsum() <= top)
    return table[chosen | (table["role"] == "baseline")].reset_index(drop=True)


def _described(trials: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Add the columns that need no comparison but that with the baseline."""
    baseline = trials[trials["role"] == "baseline"].head(1)
    perplexity, recon_loss = (
        float(baseline[name].iloc[0]) if len(baseline) else np.nan
        for name in ("perplexity", "recon_loss")
    )
    configs = [records.configs[trial_id] for trial_id in trials["trial_id"]]
    plain = records.configs[baseline["trial_id"].iloc[0]] if len(baseline) else PLAIN
    return trials.assign(
        perplexity_x=trials["perplexity"] / perplexity,
        recon_loss_x=trials["recon_loss"] / recon_loss,
        harmless=trials["recon_loss"] <= recon_loss,
        technique=[technique_summary(config, plain) for config in configs],
        config=pd.Series(configs, index=trials.index, dtype=object),
    )


def _baseline_value(table: pd.DataFrame, asked: Terms) -> float | None:
    baseline = table[table["role"] == "baseline"]
    if asked.constraint is None or baseline.empty or asked.constraint.metric not in table:
        return None
    return float(baseline[asked.constraint.metric].iloc[0])


def _violations(table: pd.DataFrame, asked: Terms, baseline: float | None) -> Values:
    if asked.constraint is None:
        return np.zeros(len(table))
    limited = table.reindex(columns=[asked.constraint.metric]).to_numpy(dtype=np.float64)[:, 0]
    return np.array([asked.constraint.violation(value, baseline) for value in limited.tolist()])


def _ranks(values: Values, feasible: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    ways: list[Direction] = ["max"] * values.shape[1]
    ranks = pareto_ranks(values, ways)
    ranks[feasible] = pareto_ranks(values[feasible], ways)
    finite = np.isfinite(values).all(axis=1)
    return np.where(finite, ranks, np.maximum(ranks, 1))


def _placed(
    table: pd.DataFrame, values: Values, baseline: Values | None, asked: Terms
) -> npt.NDArray[np.int64]:
    """Fill in `hypervolume`, `gain`, `score` and `knee` of `table`; return its order [n]."""
    feasible, rank = table["feasible"].to_numpy(dtype=np.bool_), table["rank"].to_numpy()
    finite = np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)
    front = np.flatnonzero(feasible & table["on_front"])
    points = scaled(finite, finite[front], baseline) if len(front) else finite * np.nan
    if asked.weights:
        weights = np.array([asked.weights[name] for name in asked.names])
        table["score"] = points @ weights / weights.sum()
        keys = [_descending(table["score"].to_numpy())]
        order = np.argsort(keys[0][front], kind="stable")
        placed = Placement(order, gains(points[front], order))
    else:
        table["score"] = np.nan
        keys = [_descending(points.mean(axis=1)), _descending(own_volumes(points))]
        placed = greedy(points[front])

    whole = (volume(points[front]) if len(front) else 0.0) or 1.0
    table["hypervolume"] = table["gain"] = np.where(feasible, 0.0, np.nan)
    table.loc[front, "hypervolume"] = contributions(points[front]) / whole
    table.loc[front[placed.order], "gain"] = placed.gains / whole
    at = knee(points[front])
    table["knee"] = table.index == (-1 if at is None else front[at])

    behind = np.setdiff1d(np.flatnonzero(feasible), front)
    behind = behind[np.lexsort([*(key[behind] for key in keys), rank[behind]])]
    violating = np.flatnonzero(~feasible)
    violation = table["violation"].to_numpy()[violating]
    violating = violating[np.lexsort([rank[violating], violation])]
    return np.concatenate([front[placed.order], behind, violating])


def _descending(values: Values) -> Values:
    """Keys that sort the largest first; rounded, so that rounding errors decide no order."""
    return -np.round(values, 12)
