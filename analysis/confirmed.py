"""A run's confirmation: what its best trials do when they are trained again with new seeds.

A trial that was chosen for its values was lucky as well as good, so values come out worse when it
is trained again (the winner's curse). `vqtune confirm` trains into RUN/confirm; this reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import RunError
from analysis.front import Objective, nondominated, objectives
from analysis.records import Records, read_run
from analysis.technique import PLAIN, technique_summary

FOLDER = "confirm"
METRICS = ("perplexity", "recon_loss", "active_codes", "bits_per_frame")

_DRAWS = 10_000
_ENDED = ("complete", "stopped", "diverged", "failed")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confirmation:
    """What `vqtune confirm` was asked for, and what has come of it.

    Attributes:
        finalists: trials of the search, the best first; the baseline, where there is one, last.
        seeds: what each is trained with.
        records: of RUN/confirm, whose trials are called as in `t0003-s1`.
    """

    finalists: tuple[str, ...]
    seeds: tuple[int, ...]
    records: Records


def read_confirmation(search: Records) -> Confirmation | None:
    """Read a search's confirmation; None where there is none.

    Raises RunError where RUN/confirm holds something else.
    """
    folder = search.run / FOLDER
    if not (folder / "spec.yaml").is_file():
        return None
    records = read_run(folder)
    block = records.spec.get("confirm")
    finalists, seeds = (_listed(block, *part) for part in (("finalists", str), ("seeds", int)))
    if not finalists or not seeds:
        raise RunError(
            f"{folder / 'spec.yaml'}: confirm: found {block!r}, allowed: what a confirmation has "
            "written"
        )
    return Confirmation(tuple(finalists), tuple(seeds), records)


def confirmed(search: Records) -> pd.DataFrame | None:
    """Compare a search's values with those of its confirmation; None where there is none.

    One row for each finalist, the best of the search first, then the baseline. `seeds` were asked
    for; means and deviations (n - 1) NAME and NAME_sd are over the `seeds_complete` of them,
    NAME_searched is the search's value, for METRICS and for further objectives. `on_front_searched`
    is among all complete trials of the search, `on_front` among the means, `probability` is that of
    `front_probability` times the share of the ended seeds that are complete; `harmless` says that
    the mean recon_loss is at most the baseline's mean. What is not known is NaN.

    Raises RunError where RUN/confirm holds something else than a confirmation.
    """
    found = read_confirmation(search)
    if found is None:
        return None
    goals = objectives(search.spec)
    names = list(dict.fromkeys([*METRICS, *(goal.name for goal in goals)]))
    values = {trial: _values(found, trial, names) for trial in found.finalists}
    searched = search.trials[search.trials["state"] == "complete"].set_index("trial_id")
    front, base = _searched_front(search, goals), _baseline(search)
    rows = [
        {"trial_id": trial}
        | {"role": "baseline" if trial == base else "search"}
        | {"seeds": len(found.seeds), "seeds_complete": len(values[trial])}
        | _statistics(values[trial], names)
        | {f"{name}_searched": _number(searched, trial, name) for name in names}
        | {"on_front_searched": trial in front, "technique": _technique(search, trial, base)}
        for trial in found.finalists
    ]
    columns = ["trial_id", "role", "seeds", "seeds_complete"]
    columns += [f"{name}{part}" for name in names for part in ("", "_sd", "_searched")]
    columns += ["on_front_searched", "on_front", "probability", "harmless", "technique"]
    table = pd.DataFrame(rows, columns=columns)
    means = table[[goal.name for goal in goals]].to_numpy(dtype=np.float64)
    table["on_front"] = nondominated(means, [goal.direction for goal in goals])
    baseline = table.loc[table["role"] == "baseline", "recon_loss"]
    limit = float(baseline.iloc[0]) if len(baseline) else math.nan
    table["harmless"] = table["recon_loss"] <= limit
    sets = [values[trial][[goal.name for goal in goals]].to_numpy() for trial in found.finalists]
    apart = (table["role"] == "baseline").tolist()
    kept = np.array([_kept(found, trial) for trial in found.finalists])
    table["probability"] = np.where(kept > 0, front_probability(sets, goals, apart) * kept, 0.0)
    return table


def front_probability(
    values: Sequence[Floats], goals: Sequence[Objective], apart: Sequence[bool], draws: int = _DRAWS
) -> Floats:
    """Estimate how probably each config's true mean is non-dominated among those of all; [n].

    A config's mean is drawn from a normal distribution around the mean of its seeds, with the
    covariance of one seed divided by the number of seeds. Seeds are few, so that covariance is
    pooled: over all configs, but for those that are set `apart` (the baseline, which scatters
    differently) and have two seeds of their own. So with one objective and two configs it
    is Phi(difference / (sigma sqrt(2 / n))). The draws are the same in every call.

    Args:
        values: of each config [seeds, objectives], finite; a config without a seed has NaN, and
            counts nowhere.
        goals: the objectives.
        apart: whether a config's covariance is its own.
        draws: how many.

    Returns:
        The shares; NaN for all where no config that counts has two seeds.
    """
    known = [i for i, own in enumerate(values) if len(own)]
    shares = np.full(len(values), np.nan)
    pool = _covariance([own for own, alone in zip(values, apart, strict=True) if not alone])
    spread = []
    for i in known:
        own = _covariance([values[i]]) if apart[i] or pool is None else None
        covariance = own if own is not None else pool
        if covariance is None:
            return shares
        spread.append(covariance / len(values[i]))
    rng = np.random.default_rng(0)
    signs = np.array([1.0 if goal.direction == "min" else -1.0 for goal in goals])
    costs = [
        rng.multivariate_normal(values[i].mean(0), covariance, draws, method="eigh") * signs
        for i, covariance in zip(known, spread, strict=True)
    ]
    for i, mine in zip(known, costs, strict=True):
        dominated = np.zeros(draws, dtype=np.bool_)
        for other in costs:
            dominated |= (other <= mine).all(1) & (other < mine).any(1)
        shares[i] = 1 - dominated.mean()
    return shares


def _covariance(values: Sequence[Floats]) -> Floats | None:
    """Pooled covariance [m, m] of one seed around its config's mean; None without two seeds."""
    residuals = [own - own.mean(0) for own in values if len(own) > 1]
    if not residuals:
        return None
    freedom = sum(len(own) - 1 for own in residuals)
    every = np.concatenate(residuals)
    return np.asarray(every.T @ every / freedom)


def _values(found: Confirmation, trial: str, names: Sequence[str]) -> pd.DataFrame:
    """The metrics [seeds, names] of one config's complete trials."""
    trials = found.records.trials
    wanted = [f"{trial}-s{seed}" for seed in found.seeds]
    chosen = trials[trials["trial_id"].isin(wanted) & (trials["state"] == "complete")]
    return chosen.reindex(columns=list(names)).astype("float64")


def _statistics(values: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    told = {}
    for name in names:
        told[name] = float(values[name].mean())
        told[f"{name}_sd"] = float(values[name].std(ddof=1))
    return told


def _kept(found: Confirmation, trial: str) -> float:
    """The share of a config's ended trials that are complete; 1 where none has ended."""
    trials = found.records.trials
    wanted = [f"{trial}-s{seed}" for seed in found.seeds]
    states = trials.loc[trials["trial_id"].isin(wanted), "state"]
    ended = states.isin(_ENDED).sum()
    return float((states == "complete").sum() / ended) if ended else 1.0


def _searched_front(search: Records, goals: Sequence[Objective]) -> set[str]:
    complete = search.trials[search.trials["state"] == "complete"]
    values = complete.reindex(columns=[goal.name for goal in goals]).to_numpy(dtype=np.float64)
    on_front = nondominated(values, [goal.direction for goal in goals])
    return set(complete.loc[on_front, "trial_id"])


def _baseline(search: Records) -> str:
    found = search.trials.loc[search.trials["role"] == "baseline", "trial_id"]
    return str(found.iloc[0]) if len(found) else ""


def _technique(search: Records, trial: str, base: str) -> str:
    if trial not in search.configs:
        return ""
    return technique_summary(search.configs[trial], search.configs.get(base, PLAIN))


def _number(searched: pd.DataFrame, trial: str, name: str) -> float:
    return float(searched[name].get(trial, math.nan)) if name in searched else math.nan


def _listed(block: Any, name: str, kind: type) -> list[Any]:
    values = block.get(name) if isinstance(block, dict) else None
    sound = isinstance(values, list) and all(type(value) is kind for value in values)
    return values if isinstance(values, list) and sound else []
