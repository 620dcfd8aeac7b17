"""The Pareto front of a run: which complete trials no other one beats in every objective.

Dominance, ranks and hypervolume come from moocore; this module adds directions by name, rules for
values that are not finite, and the table that `vqtune front` prints and `vqtune export` picks from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.records import Records
from analysis.technique import PLAIN, technique_summary

Direction = Literal["max", "min"]

COLUMNS = (
    "trial_id",
    "role",
    "on_front",
    "perplexity",
    "perplexity_x",
    "recon_loss",
    "recon_loss_x",
    "harmless",
    "active_codes",
    "usage",
    "bits_per_frame",
    "seconds",
    "technique",
    "config",
)


@dataclass(frozen=True)
class Objective:
    """A metric that a search improves, and which way is better."""

    name: str
    direction: Direction


def objectives(spec: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Take the objectives from a run's spec."""
    return tuple(Objective(name, way) for name, way in spec["objectives"].items())


def nondominated(
    values: npt.NDArray[np.float64], directions: Sequence[Direction]
) -> npt.NDArray[np.bool_]:
    """Which rows of `values` [n, m] are on the front; a mask [n].

    A row dominates another if it is nowhere worse and somewhere better, so equal rows are on the
    front together. A row with a NaN or an infinity is never on it and dominates nothing.
    Raises ValueError where `directions` does not fit `values`.
    """
    costs, finite = _costs(values, directions)
    mask = np.zeros(len(costs), dtype=np.bool_)
    mask[finite] = moocore.is_nondominated(costs[finite], keep_weakly=True)
    return mask


def pareto_ranks(
    values: npt.NDArray[np.float64], directions: Sequence[Direction]
) -> npt.NDArray[np.int64]:
    """Non-dominated rank of each row of `values` [n, m]; ranks [n] from 0, the front.

    Rank r is the front of what is left without the ranks below r; equal rows rank equally. Rows
    with a NaN or an infinity share one rank behind all others, so that sorting puts them last.
    Raises ValueError where `directions` does not fit `values`.
    """
    costs, finite = _costs(values, directions)
    found = np.asarray(moocore.pareto_rank(costs[finite]), dtype=np.int64)
    ranks = np.full(len(costs), found.max(initial=-1) + 1, dtype=np.int64)
    ranks[finite] = found
    return ranks


def hypervolume(
    values: npt.NDArray[np.float64], directions: Sequence[Direction], reference: Sequence[float]
) -> float:
    """Volume between the front of `values` [n, m] and the point `reference` [m], in their units.

    Rows that are not better than the reference in every objective add nothing, nor do rows with a
    NaN or an infinity. Raises ValueError where the shapes do not fit or `reference` is not finite.
    """
    costs, finite = _costs(values, directions)
    worst, usable = _costs(np.asarray([reference], dtype=np.float64), directions)
    if not usable.all():
        raise ValueError(f"reference: found {list(reference)}, allowed finite numbers")
    return float(moocore.hypervolume(costs[finite], ref=worst[0]))


def front_table(records: Records) -> pd.DataFrame:
    """List the front among the complete trials, and the baseline, by ascending recon_loss.

    The baseline is a row whether or not it is on the front; there is none where it did not
    complete. Columns: those in COLUMNS. `perplexity_x` and `recon_loss_x` are ratios to the
    baseline's values, NaN without one; `harmless` says that recon_loss is at most the
    baseline's; `technique` tells in words what differs from the baseline, or from the plain
    VQ-VAE without one; `config` is the trial's nested config.
    """
    trials = records.trials[records.trials["state"] == "complete"]
    goals = objectives(records.spec)
    values = trials.reindex(columns=[goal.name for goal in goals]).to_numpy(dtype=np.float64)
    on_front = nondominated(values, [goal.direction for goal in goals])
    baseline = trials[trials["role"] == "baseline"].head(1)
    perplexity, recon_loss = (
        float(baseline[name].iloc[0]) if len(baseline) else np.nan
        for name in ("perplexity", "recon_loss")
    )
    configs = [records.configs[trial_id] for trial_id in trials["trial_id"]]
    plain = records.configs[baseline["trial_id"].iloc[0]] if len(baseline) else PLAIN
    table = trials.assign(
        on_front=on_front,
        perplexity_x=trials["perplexity"] / perplexity,
        recon_loss_x=trials["recon_loss"] / recon_loss,
        harmless=trials["recon_loss"] <= recon_loss,
        technique=[technique_summary(config, plain) for config in configs],
        config=pd.Series(configs, index=trials.index, dtype=object),
    )
    listed = table[on_front | table.index.isin(baseline.index)]
    ordered = listed.sort_values(["recon_loss", "trial_id"], ignore_index=True)
    return ordered[list(COLUMNS)]


def best(records: Records, n: int) -> pd.DataFrame:
    """Pick the first `n` trials of the front, the best first; columns as in `front_table`.

    Harmless trials come first, by descending perplexity: the most codes at no cost. The others
    follow by ascending recon_loss, so that what harms least comes first; without a complete
    baseline all are among these.
    """
    table = front_table(records)
    front = table[table["on_front"]]
    by_gain = front[front["harmless"]].sort_values("perplexity", ascending=False, kind="stable")
    by_harm = front[~front["harmless"]]
    return front.loc[[*by_gain.index, *by_harm.index][:n]].reset_index(drop=True)


def top_table(records: Records, top: int | None) -> pd.DataFrame:
    """The front's best `top` trials, all where None, with the baseline beside them."""
    table = front_table(records)
    if top is None:
        return table
    chosen = best(records, top)
    beside = (table["role"] == "baseline") & ~table["trial_id"].isin(chosen["trial_id"])
    return pd.concat([chosen, table[beside]], ignore_index=True)


def _costs(
    values: npt.NDArray[np.float64], directions: Sequence[Direction]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return `values` [n, m] with all objectives to be minimised, and which rows are finite [n]."""
    if values.ndim != 2 or values.shape[1] != len(directions) or not directions:
        raise ValueError(
            f"values: found shape {list(values.shape)}, allowed [n, {len(directions)}] for the "
            f"directions {list(directions)}"
        )
    unknown = [way for way in directions if way not in ("max", "min")]
    if unknown:
        raise ValueError(f"directions: found {unknown[0]!r}, allowed 'max' or 'min'")
    signs = np.array([-1.0 if way == "max" else 1.0 for way in directions])
    return values * signs, np.asarray(np.isfinite(values).all(axis=1))
