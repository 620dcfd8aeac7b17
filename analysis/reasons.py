"""Why a trial stands where it does in a ranking, in a short clause.

`ranking` hands over its columns and gets the column `reason` back.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.constraint import Constraint
from analysis.flatten import row_dicts
from analysis.terms import Terms

Values = npt.NDArray[np.float64]


def reasons(
    ranked: pd.DataFrame, values: Values, asked: Terms, baseline: float | None
) -> list[str]:
    """Say why each trial of a ranking stands where it does.

    Args:
        ranked: the ranking, best first, with all that `ranking` finds out by numbers.
        values: the objectives of its trials [n, m], more is better in each.
        asked: what it is ranked by.
        baseline: the baseline's value of the metric that the constraint limits; None without one.
    """
    told = []
    beyond = " beyond the baseline" if ranked["role"].eq("baseline").any() else ""
    superlatives = _superlatives(ranked, values, asked)
    beaten_by = _dominators(ranked, values)
    equals = _equals(ranked, values)
    for i, row in enumerate(row_dicts(ranked)):
        parts = []
        if row["role"] == "baseline" and row["on_front"]:
            parts.append("the baseline itself")
        if not row["feasible"]:
            parts.append(_violates(asked.constraint, row["violation"], baseline))
        elif row["on_front"] and asked.weights:
            parts.append(f"{'highest ' * (i == 0)}weighted score {row['score']:.2f}")
        elif row["on_front"]:
            parts.append(_adds(row, beyond))
        lacking = [n for n, v in zip(asked.names, values[i], strict=True) if not math.isfinite(v)]
        if lacking:
            parts.append(f"no finite {' and '.join(lacking)}")
        elif row["on_front"]:
            parts += ["knee"] * row["knee"] + superlatives[i] + equals[i]
        elif row["feasible"]:
            parts.append(f"dominated by {beaten_by[i]}")
        told.append("; ".join(part for part in parts if part))
    return told


def percent(share: float) -> str:
    """Two digits of a share are enough to compare by: 71%, 9.1%, 0.4%."""
    if 0 < share < 0.001:
        return "less than 0.1%"
    if 0.995 <= share < 1:
        return "over 99%"
    return f"{share:.0%}" if share >= 0.0995 else f"{100 * share:.2g}%"


def _adds(row: dict[str, Any], beyond: str) -> str:
    if math.isnan(row["gain"]):
        return "on the front"
    share = f"{percent(row['gain'])} of the front's hypervolume"
    return f"dominates most{beyond}: {share}" if row["position"] == 1 else f"adds {share}"


def _violates(constraint: Constraint | None, violation: float, baseline: float | None) -> str:
    if constraint is None:
        return ""
    if math.isinf(violation):
        return f"violates {constraint}: no finite {constraint.metric}"
    limit = abs(constraint.number * (baseline or 0.0) if constraint.relative else constraint.number)
    by = percent(violation / limit) if limit else f"{violation:.3g}"
    return f"violates {constraint} by {by}"


def _superlatives(ranked: pd.DataFrame, values: Values, asked: Terms) -> list[list[str]]:
    """What each trial is best in: of all, or at least of those that hold the constraint."""
    feasible = ranked["feasible"].to_numpy(dtype=np.bool_)
    told: list[list[str]] = [[] for _ in range(len(ranked))]
    for goal, found in zip(asked.objectives, values.T, strict=True):
        column = np.where(np.isfinite(found), found, -np.inf)
        if (column == column.max(initial=-np.inf)).sum() == len(column) > 1:
            continue  # all are equal in it
        of_all, holding = (x.max(initial=-np.inf) for x in (column, column[feasible]))
        name = f"{'highest' if goal.direction == 'max' else 'lowest'} {goal.name}"
        for i in np.flatnonzero((column == of_all) | (feasible & (column == holding))):
            told[i].append(name if column[i] == of_all else f"{name} within the constraint")
    return told


def _dominators(ranked: pd.DataFrame, values: Values) -> list[str]:
    """The first trial of the feasible front that dominates each other feasible one, or ''."""
    found = np.full(len(ranked), "", dtype=object)
    front = (ranked["on_front"] & ranked["feasible"]).to_numpy(dtype=np.bool_)
    open_ = np.flatnonzero(~front & ranked["feasible"] & np.isfinite(values).all(axis=1))
    for i in np.flatnonzero(front):
        beaten = (values[i] >= values[open_]).all(axis=1)
        found[open_[beaten]] = ranked["trial_id"].iloc[i]
        open_ = open_[~beaten]
    return [str(trial_id) for trial_id in found]


def _equals(ranked: pd.DataFrame, values: Values) -> list[list[str]]:
    """The trial that came first with exactly the same values."""
    first: dict[tuple[float, ...], str] = {}
    told = []
    for trial_id, row in zip(ranked["trial_id"], values.tolist(), strict=True):
        same = first.setdefault(tuple(row), trial_id)
        told.append([] if same == trial_id else [f"equal to {same}"])
    return told
