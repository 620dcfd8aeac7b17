"""The Pareto front of a run: which complete trials no other one beats in every objective.

Dominance, ranks and hypervolume come from moocore; this module adds directions by name and rules
for values that are not finite. `ranking` makes the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import moocore
import numpy as np
import numpy.typing as npt

Direction = Literal["max", "min"]


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
