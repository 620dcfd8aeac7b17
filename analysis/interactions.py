"""Which pairs of parameters act together: what they do is more than the sum of what each does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats  # type: ignore[import-untyped]
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict

from analysis.compared import compared
from analysis.design import Design
from analysis.factors import Factor
from analysis.records import Records

COLUMNS = ("objective", "first", "second", "strength", "p", "trials", "samples", "note")

Floats = npt.NDArray[np.float64]

# Fewer trials in which both vary say nothing about a pair.
FEWEST = 30
# Pairs listed for an objective, and the share of them that may be chance alone.
MOST = 8
_FALSE = 0.1
_FOLDS = 4


def interactions(records: Records) -> pd.DataFrame:
    """List the pairs of parameters that act together on an objective; columns as in COLUMNS.

    `strength` is the share of the objective's variance that is due to the pair beyond what its two
    parameters do on their own, see `pair_strengths`; `trials` in how many both could be otherwise;
    `p` how likely chance alone makes a pair look so strong, corrected for the number of pairs. Only
    pairs with a p of at most 0.1 are listed, and MOST at most, the strongest of each objective
    first. Values are those at the number of `samples` that `fidelity.comparison` chooses.
    """
    frames = []
    for goal, comparison, values, found in compared(records):
        if len(values) < FEWEST or np.ptp(values) == 0:
            continue
        pairs = pair_strengths(found, values)
        told = pairs.sort_values("strength", ascending=False, kind="stable")
        frames.append(
            told.assign(objective=goal.name, samples=comparison.samples, note=comparison.note)
        )
    if not any(len(frame) for frame in frames):
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)[list(COLUMNS)]


def pair_strengths(found: Sequence[Factor], values: Floats, seed: int = 0) -> pd.DataFrame:
    """Pairs of factors that act together on `values` [n]: first, second, strength, p, trials.

    An additive model, boosted trees of one split, takes away all that single factors explain, and
    a two-way analysis of variance finds pairs in what is left, as in GA²M (Lou et al. 2013). A
    forest's second-order terms would miss two factors neither of which does anything alone, since
    no tree splits on either. A number enters by its first two Legendre polynomials, a choice by
    its levels, the pair by their products. The strength, from 0 to 1, is the squares explained less
    what chance explains (ω²), over those of the values; the p of its F test is corrected by
    Benjamini and Hochberg (1995). The likeliest pair is taken away before the next is looked for,
    or every pair that resembles it would be found too, until p is above 0.1 or MOST are found.

    Pairs that hardly ever exist together, or of which one decides the other, are left out.
    """
    columns = ["first", "second", "strength", "p", "trials"]
    total = float(((values - values.mean()) ** 2).sum())
    rows: list[tuple[str, str, float, float, int]] = []
    if len(found) >= 2 and total > 0:
        design = Design(found)
        rest = _not_additive(design.matrix, values, seed)
        pairs = _pairs(design)
        while len(rows) < MOST and pairs:
            tests = [pair.test(rest) for pair in pairs]
            corrected = stats.false_discovery_control([p for _, p in tests])
            best = int(np.argmin([p for _, p in tests]))
            if corrected[best] > _FALSE:
                break
            pair = pairs.pop(best)
            explained = min(max(tests[best][0] / total, 0.0), 1.0)
            rows.append((*pair.names, explained, float(corrected[best]), len(pair.rows)))
            rest[pair.rows] = pair.without(rest)
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class _Pair:
    """Two factors where both vary: `rows`, and orthonormal columns for each alone and for both."""

    names: tuple[str, str]
    rows: npt.NDArray[np.intp]
    alone: Floats
    both: Floats

    def test(self, rest: Floats) -> tuple[float, float]:
        """Squares that the two together explain in `rest` [n], less what chance does; and p."""
        values = rest[self.rows] - self.alone @ (self.alone.T @ rest[self.rows])
        explained = float(((self.both.T @ values) ** 2).sum())
        freedom = self.both.shape[1]
        spare = len(self.rows) - self.alone.shape[1] - freedom
        noise = max(float(values @ values) - explained, 0.0) / spare
        if not noise > 0:
            return explained, float(explained <= 0)
        p = stats.f.sf(explained / freedom / noise, freedom, spare)
        return explained - freedom * noise, float(p)

    def without(self, rest: Floats) -> Floats:
        """What is left of `rest` in `rows` without what the two explain, alone and together."""
        values = rest[self.rows] - self.alone @ (self.alone.T @ rest[self.rows])
        return np.asarray(values - self.both @ (self.both.T @ values))


def _pairs(design: Design) -> list[_Pair]:
    """All pairs that can be told from their two factors alone, in the trials where both vary."""
    bases = {name: _basis(factor) for name, factor in design.factors.items()}
    varies = {name: design.varies(name) for name in design.factors}
    pairs = []
    for first, second in itertools.combinations(design.factors, 2):
        rows = np.flatnonzero(varies[first] & varies[second])
        if len(rows) < FEWEST:
            continue
        left, right = bases[first][rows], bases[second][rows]
        products = (left[:, :, None] * right[:, None, :]).reshape(len(rows), -1)
        alone = _orthonormal(np.hstack([np.ones((len(rows), 1)), left, right]))
        both = _orthonormal(products - alone @ (alone.T @ products))
        if both.shape[1] and len(rows) >= 2 * (alone.shape[1] + both.shape[1]):
            pairs.append(_Pair((first, second), rows, alone, both))
    return pairs


def _orthonormal(columns: Floats) -> Floats:
    """Orthonormal columns [n, rank] that span `columns` [n, k]."""
    left, size, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, size > 1e-6 * max(1.0, math.sqrt(len(columns)))])


def _not_additive(inputs: npt.NDArray[np.float32], values: Floats, seed: int) -> Floats:
    """What is left of values [n] by a model that adds up a function of each column.

    Each trial by a model that has not seen it: one that has would have learned part of the pairs'
    doing by heart.
    """
    stumps = GradientBoostingRegressor(
        n_estimators=150, learning_rate=0.1, max_depth=1, subsample=0.7, random_state=seed
    )
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    return np.asarray(values - cross_val_predict(stumps, inputs, values, cv=folds))


def _basis(factor: Factor) -> Floats:
    """Functions [n, k] of a factor, NaN where it does not exist."""
    if factor.levels:
        basis = np.asarray(factor.codes[:, None] == np.arange(1, len(factor.levels)), dtype=float)
    else:
        x = 2 * factor.places - 1
        basis = np.stack([x, 1.5 * x**2 - 0.5], axis=1)
    basis[~factor.active] = math.nan
    return basis
