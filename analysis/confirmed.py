"""A run's confirmation: what its best trials do when they are trained again with new seeds.

A trial that was chosen for its values was lucky as well as good, so values come out worse when it
is trained again (the winner's curse). `vqtune confirm` trains into RUN/confirm; this reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import RunError
from analysis.front import Objective, objectives
from analysis.ranking import ranking
from analysis.records import Records, read_run
from analysis.technique import PLAIN, technique_summary

FOLDER = "confirm"
METRICS = ("perplexity", "recon_loss", "active_codes", "bits_per_frame")

# What the ranking of the means says, and what stands for a config without any.
_RANKED: dict[str, Any] = {
    "position": math.nan,
    "on_front": False,
    "feasible": False,
    "harmless": False,
    "reason": "",
}
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


def confirmed(search: Records, found: Confirmation | None = None) -> pd.DataFrame | None:
    """Compare a search's values with those of its confirmation; None where there is none.

    One row for each finalist, the best by its means first, then the baseline. `seeds` were asked
    for; means and deviations (n - 1) NAME and NAME_sd are over the `seeds_complete` of them,
    NAME_searched is the search's value, for METRICS and for further objectives. `on_front_searched`
    is among the complete trials of the search; `position`, `on_front`, `feasible`, `harmless` and
    `reason` are what `ranking` says of the means. `probability` is that of `front_probability`
    times the share of the ended seeds that are complete. What is not known is NaN or empty.
    `found` is the confirmation, if it has been read.

    Raises RunError where RUN/confirm holds something else than a confirmation.
    """
    found = found or read_confirmation(search)
    if found is None:
        return None
    goals = objectives(search.spec)
    names = list(dict.fromkeys([*METRICS, *(goal.name for goal in goals)]))
    trials = {trial: _trials(found, trial) for trial in found.finalists}
    complete = {trial: own[own["state"] == "complete"] for trial, own in trials.items()}
    searched = ranking(search).set_index("trial_id")
    means = ranking(_means(search, complete)).set_index("trial_id")
    base = next(iter(search.trials.loc[search.trials["role"] == "baseline", "trial_id"]), None)
    rows = [
        {"trial_id": trial, "role": "baseline" if trial == base else "search"}
        | {"seeds": len(found.seeds), "seeds_complete": len(complete[trial])}
        | _statistics(complete[trial], names)
        | {f"{name}_searched": _known(searched, name, trial, math.nan) for name in names}
        | {"on_front_searched": _known(searched, "on_front", trial, False)}
        | {name: _known(means, name, trial, unknown) for name, unknown in _RANKED.items()}
        | {"technique": _technique(search, trial, base)}
        for trial in found.finalists
    ]
    table = pd.DataFrame(rows)
    sets = [complete[t].reindex(columns=[goal.name for goal in goals]) for t in found.finalists]
    kept = np.array([_share_kept(trials[trial]) for trial in found.finalists])
    apart = [trial == base for trial in found.finalists]
    values = [own.to_numpy(dtype=np.float64) for own in sets]
    chance = np.where(kept > 0, front_probability(values, goals, apart) * kept, 0.0)
    table.insert(list(table).index("on_front") + 1, "probability", chance)
    order = table.assign(baseline=table["role"] == "baseline")
    ordered = order.sort_values(["baseline", "position"], kind="stable").index
    return table.loc[ordered].reset_index(drop=True)


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


def _trials(found: Confirmation, trial: str) -> pd.DataFrame:
    """The trials of one config, with whatever they have come to."""
    wanted = [f"{trial}-s{seed}" for seed in found.seeds]
    return found.records.trials[found.records.trials["trial_id"].isin(wanted)]


def _means(search: Records, complete: Mapping[str, pd.DataFrame]) -> Records:
    """The search as if its only trials were the finalists, each with the means of its seeds."""
    trials = search.trials[
        search.trials["trial_id"].isin([t for t, own in complete.items() if len(own)])
    ].copy()
    trials["state"] = "complete"
    for name in search.reports.columns.intersection(trials.columns).drop("trial_id"):
        means = {
            t: float(own[name].mean()) if name in own else math.nan for t, own in complete.items()
        }
        trials[name] = trials["trial_id"].map(means).astype("float64")
    return replace(search, trials=trials)


def _statistics(values: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    values = values.reindex(columns=list(names)).astype("float64")
    told = {}
    for name in names:
        told[name] = float(values[name].mean())
        told[f"{name}_sd"] = float(values[name].std(ddof=1))
    return told


def _share_kept(trials: pd.DataFrame) -> float:
    """The share of a config's ended trials that are complete; 1 where none has ended."""
    ended = trials["state"].isin(_ENDED).sum()
    return float((trials["state"] == "complete").sum() / ended) if ended else 1.0


def _technique(search: Records, trial: str, base: str | None) -> str:
    if trial not in search.configs:
        return ""
    return technique_summary(search.configs[trial], search.configs.get(base or "", PLAIN))


def _known(table: pd.DataFrame, name: str, trial: str, unknown: Any) -> Any:
    return table[name].get(trial, unknown) if name in table else unknown


def _listed(block: Any, name: str, kind: type) -> list[Any]:
    values = block.get(name) if isinstance(block, dict) else None
    sound = isinstance(values, list) and all(type(value) is kind for value in values)
    return values if isinstance(values, list) and sound else []
