"""What each technique changes in each objective, among trials that are alike in everything else.

A sampler that learns gives good techniques to trials that are good for other reasons too, so the
difference of two means credits a technique with what came along with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict

from analysis.compared import compared
from analysis.design import Design
from analysis.records import Records
from analysis.switches import Switch, switches

COLUMNS = (
    "technique",
    "parameter",
    "objective",
    "effect",
    "low",
    "high",
    "on",
    "off",
    "mean_on",
    "mean_off",
    "samples",
    "note",
)

Floats = npt.NDArray[np.float64]

# Trials with a technique, and without, below which its effect is not estimated.
FEWEST = 8
# Of what a technique's presence varies, the part that must be left once the other settings are
# known; with less it hardly ever changed on its own.
_OWN_SHARE = 0.05
# Splits of the trials that are averaged, bootstrap draws for each, and what the interval covers.
_REPEATS = 2
_DRAWS = 1000
_LEVEL = 0.9
# So many trials are split in two halves, fewer in three parts, to leave enough to learn from.
_MANY = 200


def technique_effects(records: Records) -> pd.DataFrame:
    """Estimate what each technique adds to each objective; one row each, columns as in COLUMNS.

    `effect` is in the objective's units, at matched others: see `matched_effect`; `low` and
    `high` are its 90% interval. `mean_on` and `mean_off` are the plain means that it corrects, of
    the `on` trials that have the technique and the `off` that have what it is compared with (see
    `switches`), only those that could have either counting (`Design.allowed`), all at the number
    of `samples` that `fidelity.comparison` chooses; `parameter` is
    the technique's path in the config. Where the effect cannot be told it is NaN, and `note` says
    why. The techniques come in the order in which the configs name them.
    """
    rows: list[dict[str, Any]] = []
    for goal, comparison, values, found in compared(records):
        design = Design(found)
        for switch in switches(found):
            rows.append(_row(switch, design, values) | {"objective": goal.name})
            rows[-1]["samples"] = comparison.samples
            rows[-1]["note"] = "; ".join(filter(None, [rows[-1]["note"], comparison.note]))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ("effect", "low", "high", "mean_on", "mean_off", "samples")
    return frame.astype(dict.fromkeys(numbers, "float64") | {"on": "int64", "off": "int64"})


def matched_effect(
    on: Floats, values: Floats, others: npt.NDArray[np.float32], seed: int = 0
) -> tuple[float, float, float]:
    """Effect of what is `on` [n], 1 or 0, on `values` [n] at equal `others` [n, columns], and 90%.

    The partially linear model of Robinson (1988), estimated as in double machine learning
    (Chernozhukov et al. 2018, section 4.1): boosted trees predict, from the others alone, the
    values and whether it is on, each trial by a model that has not seen it; the effect is the
    slope of what is left of the values over what is left of the presence. Trials count by how
    little their others decide whether it is on, so the effect is that among trials that could have
    gone either way. The interval is a Bayesian bootstrap's (Rubin 1981) over the trials, all of it
    for two ways to split the trials, since with few of them much hangs on the split.

    NaN where less than a twentieth of the presence's variance is left.
    """
    effects, draws = [], []
    for repeat in range(_REPEATS):
        presence = on - _predicted(others, on, seed + repeat)
        rest = values - _predicted(others, values, seed + repeat)
        if (presence**2).sum() < _OWN_SHARE * ((on - on.mean()) ** 2).sum():
            return (math.nan, math.nan, math.nan)
        weights = np.random.default_rng(seed + repeat).exponential(size=(_DRAWS, len(on)))
        draws.append((weights @ (presence * rest)) / (weights @ presence**2))
        effects.append((presence @ rest) / (presence @ presence))
    low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return (float(np.mean(effects)), float(low), float(high))


def _row(switch: Switch, design: Design, values: Floats) -> dict[str, Any]:
    """What is known of one technique, and why there is no more."""
    name = switch.factor.name
    levels = [np.flatnonzero(side)[0] for side in (switch.on, switch.off)]
    could = design.allowed(name)[switch.factor.codes[levels].astype(int)].all(axis=0)
    on, off = switch.on & could, switch.off & could
    effect = (math.nan, math.nan, math.nan)
    notes = [f"together with {', '.join(switch.factor.same)}" if switch.factor.same else ""]
    if min(on.sum(), off.sum()) < FEWEST:
        notes.insert(0, f"{on.sum()} trials with it and {off.sum()} alike without: too few")
    else:
        rows = on | off
        others = np.delete(design.matrix[rows], design.column_numbers([name]), axis=1)
        effect = matched_effect(on[rows].astype(np.float64), values[rows], others)
        if math.isnan(effect[0]):
            notes.insert(0, "it never changes without other settings")
    return {
        "technique": switch.technique,
        "parameter": name,
        **dict(zip(("effect", "low", "high"), effect, strict=True)),
        "on": int(on.sum()),
        "off": int(off.sum()),
        "mean_on": values[on].mean() if on.any() else math.nan,
        "mean_off": values[off].mean() if off.any() else math.nan,
        "note": "; ".join(filter(None, notes)),
    }


def _predicted(inputs: npt.NDArray[np.float32], values: Floats, seed: int) -> Floats:
    """What others' trials say of each one's value [n], from its inputs [n, columns]."""
    inputs = inputs[:, np.ptp(inputs, axis=0) > 0]
    if np.ptp(values) == 0 or not inputs.shape[1]:
        return np.full_like(values, values.mean())
    trees = GradientBoostingRegressor(
        n_estimators=30,
        learning_rate=0.25,
        max_depth=2,
        subsample=0.7,
        max_features=0.5,
        random_state=seed,
    )
    folds = KFold(3 if len(values) < _MANY else 2, shuffle=True, random_state=seed)
    return np.asarray(cross_val_predict(trees, inputs, values, cv=folds))
