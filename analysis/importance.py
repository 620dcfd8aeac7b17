"""Which parameters matter for each objective: PED-ANOVA and fANOVA over conditional spaces.

fANOVA says what explains the objective over all that was tried; PED-ANOVA says what sets the best
tenth apart, so that it does not care how bad the bad ones are.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from sklearn.ensemble import RandomForestRegressor

from analysis.compared import compared
from analysis.design import Design
from analysis.factors import Factor
from analysis.records import Records

COLUMNS = (
    "objective",
    "parameter",
    "branch",
    "ped_anova",
    "fanova",
    "explained",
    "active",
    "trials",
    "samples",
    "note",
)

# Fewer trials say nothing about importance.
FEWEST = 10
# PED-ANOVA looks at the best tenth, as in its paper, and at no fewer trials than these: Optuna
# advises 5 at least.
_BEST_SHARE, _BEST = 0.1, 8
# Trials that fANOVA averages over; more change the shares by less than a hundredth.
_AVERAGED = 100
_TREES = 64
# Turns of a fit to rows and columns with gaps.
_ROUNDS = 30
# An out-of-bag R² below this is no ground for a decision.
_WEAK = 0.2
# A number of so few values is a choice between them, for PED-ANOVA.
_FEW = 6


def importance(records: Records) -> pd.DataFrame:
    """Rank the parameters for each objective; one row each, columns as in COLUMNS.

    `parameter` is a path in the config, that of a block for a technique as such; `branch` says
    when it exists, empty for always, and `active` in how many of the `trials` compared. Values are
    those at the number of `samples` that `fidelity.comparison` chooses. `ped_anova` and `fanova`
    each sum to 1 over an objective's parameters, and are NaN where nothing can be said;
    `explained` is the out-of-bag R² of fANOVA's forest, up to 1: where it is near 0 or below,
    fANOVA describes noise. `note` says what else to know, for instance what always changes
    together with the parameter. The largest fANOVA comes first.

    An objective that is the same in all trials, or that fewer than FEWEST have, has no rows.
    """
    rows: list[dict[str, object]] = []
    for goal, comparison, values, found in compared(records):
        if len(values) < FEWEST or np.ptp(values) == 0 or not found:
            continue
        shares, explained = fanova(found, values)
        best = ped_anova(found, values if goal.direction == "min" else -values)
        weak = "" if explained >= _WEAK else "fANOVA's forest explains little"
        ranked = sorted(found, key=lambda factor: -np.nan_to_num(shares[factor.name]))
        rows += [
            {
                "objective": goal.name,
                "parameter": factor.name,
                "branch": factor.branch,
                "ped_anova": best[factor.name],
                "fanova": shares[factor.name],
                "explained": explained,
                "active": int(factor.active.sum()),
                "trials": len(values),
                "samples": comparison.samples,
                "note": "; ".join(filter(None, [_together(factor), comparison.note, weak])),
            }
            for factor in ranked
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {"ped_anova": "float64", "fanova": "float64", "explained": "float64", "samples": "float64"}
    )


def fanova(
    found: Sequence[Factor], values: npt.NDArray[np.float64], seed: int = 0
) -> tuple[dict[str, float], float]:
    """Share of variance [0, 1] of each factor's main effect on `values` [n], and the forest's R².

    Functional ANOVA of a random forest (Hutter et al. 2014, An Efficient Approach for Assessing
    Hyperparameter Importance): the variance, over a factor's range or levels, of what the forest
    predicts on average over everything else, normalised to sum to 1. Two things differ from
    Optuna's, which leaves out what not every trial has. The average is over the trials as they
    are, not over a box in which most combinations cannot be, and a technique is tried only on
    trials that could have it (`Design.allowed`). And the variance of what exists in a branch only
    is taken within the branch, times the share of trials in it: the law of total variance gives
    each factor what it explains where it exists, so that a branch that is rare counts as little
    as it is rare, and the choice of branch is not mixed with what is in it.

    NaN for all where the forest predicts one value for everything.
    """
    design, chance = Design(found), np.random.default_rng(seed)
    forest = RandomForestRegressor(_TREES, oob_score=True, random_state=seed)
    forest.fit(design.matrix, values)
    variances = {}
    for factor in found:
        could = design.varies(factor.name)
        rows = np.flatnonzero(could)
        if len(rows) > _AVERAGED:
            rows = chance.choice(rows, _AVERAGED, replace=False)
        points = design.points(factor.name)
        tried = np.tile(design.matrix[rows], (len(points), 1, 1))
        for changed, point in zip(tried, points, strict=True):
            design.put(changed, factor.name, point, chance)
        if len(rows):
            predicted = forest.predict(tried.reshape(-1, tried.shape[-1]))
            known = design.allowed(factor.name)[:, rows] if factor.block else None
            effects = _main_effects(predicted.reshape(len(points), -1), known)
            variances[factor.name] = float(could.mean() * effects.var())
        else:
            variances[factor.name] = 0.0
    total = sum(variances.values())
    explained = float(forest.oob_score_)
    if not total > 0:
        return dict.fromkeys(variances, math.nan), explained
    return {name: float(variance / total) for name, variance in variances.items()}, explained


def _main_effects(
    predicted: npt.NDArray[np.float64], known: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float64]:
    """Effect of each point [points] on predictions [points, rows], of which those `known` count.

    That of the least-squares fit of a number a point plus a number a row; where all count, it is
    the mean over the rows.
    """
    effects = predicted.mean(axis=1)
    if known is None or known.all():
        return np.asarray(effects)
    weights = known.astype(np.float64)
    for _ in range(_ROUNDS):
        of_rows = (weights * (predicted - effects[:, None])).sum(axis=0) / weights.sum(axis=0)
        rest = (weights * (predicted - of_rows)).sum(axis=1)
        effects = rest / np.maximum(weights.sum(axis=1), 1)
    return np.asarray(effects - effects.mean())


def ped_anova(found: Sequence[Factor], costs: npt.NDArray[np.float64]) -> dict[str, float]:
    """Share [0, 1] of each factor in telling the trials of least `costs` [n] from all.

    Optuna's PED-ANOVA (Watanabe et al. 2023), which is condPED-ANOVA (Baba et al. 2026): the
    density of a parameter among the best trials against that among all, within each branch in
    which it exists and weighted by it. NaN for all where the best are like all.
    """
    spaces = {factor.name: _distribution(factor) for factor in found}
    columns = {factor.name: _parameters(factor, spaces[factor.name]) for factor in found}
    study = _study()
    for i, cost in enumerate(costs):
        there = [factor.name for factor in found if factor.active[i]]
        study.add_trial(
            optuna.create_trial(
                value=float(cost),
                params={name: columns[name][i] for name in there},
                distributions={name: spaces[name] for name in there},
            )
        )
    share = min(max(_BEST_SHARE, _BEST / len(costs)), 0.5)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a branch of few trials counts for little by its weight
        shares = evaluator.evaluate(study)
    total = sum(shares.values())
    return {name: share / total if total > 0 else math.nan for name, share in shares.items()}


def _study() -> optuna.Study:
    """An empty study that minimises, made without a word."""
    logger = logging.getLogger("optuna.storages._in_memory")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return optuna.create_study(direction="minimize")
    finally:
        logger.setLevel(level)


def _distribution(factor: Factor) -> BaseDistribution:
    if factor.levels:
        return CategoricalDistribution(tuple(map(str, factor.levels)))
    values = np.unique(factor.codes[factor.active])
    if len(values) <= _FEW:
        return CategoricalDistribution(tuple(values.tolist()))
    return FloatDistribution(float(values[0]), float(values[-1]), log=factor.log)


def _parameters(factor: Factor, space: BaseDistribution) -> list[str | float]:
    """The factor's values [n] as Optuna has them; of no meaning where it does not exist."""
    if factor.levels:
        return [str(factor.levels[int(code)]) for code in np.nan_to_num(factor.codes)]
    return [float(code) for code in factor.codes]


def _together(factor: Factor) -> str:
    return f"together with {', '.join(factor.same)}" if factor.same else ""
