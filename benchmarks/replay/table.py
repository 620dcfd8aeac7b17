"""The recorded table: learning curves, the front they end in, and which config answers a proposal.

Read from the two files of `benchmarks.replay.record`. Row 0 is the baseline: it has no parameters,
answers no proposal and is on no front; the rows from 1 on are what searches choose from.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from analysis.front import Direction, hypervolume, nondominated
from benchmarks.replay.record import METRICS
from vqtune.space_nodes import Choice, Option, Parameter, RandomTrial
from vqtune.spaces import Space

OBJECTIVES = ("perplexity", "recon_loss")
DIRECTIONS: tuple[Direction, Direction] = ("max", "min")
# What every front is measured from: one code, and the baseline's recon_loss (0.23697) rounded up.
REFERENCE = (1.0, 0.24)
BASELINE = 0
# Share of the weight that all parameters have alike, so that none is free to differ.
_EVEN = 0.05
# Random proposals, and steps, by which `offsets` are found.
_DRAWS, _STEPS = 4000, 300

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """All reports of one config.

    Parameters
    ----------
    samples, seconds : what training had taken by each report, [reports]
    metrics : the values of METRICS, [reports] each
    codes : K of each report, [reports]
    diverged : whether the last report is of a loss that is not finite

    """

    samples: npt.NDArray[np.int64]
    seconds: Floats
    metrics: dict[str, Floats]
    codes: npt.NDArray[np.int64]
    diverged: bool

    def __len__(self) -> int:
        """How many reports."""
        return len(self.samples)

    def report(self, index: int) -> dict[str, Any]:
        """One report as a trial of vqtune has it; `index` from 0."""
        last = index == len(self) - 1
        return {
            "samples": int(self.samples[index]),
            "seconds": float(self.seconds[index]),
            **{name: float(values[index]) for name, values in self.metrics.items()},
            "codes": int(self.codes[index]),
            "diverged": last and self.diverged,
            "complete": last and not self.diverged,
            "done": last,
            "training_iteration": index + 1,
        }


class Table:
    """Learning curves of `rows` configs and the parameters that each was drawn with.

    Args:
        curves: one row a report, as `curves.parquet`.
        configs: one row a config, as `configs.parquet`; its parameters are JSON.
        space: what the configs were drawn from.
    """

    def __init__(self, curves: pd.DataFrame, configs: pd.DataFrame, space: Space) -> None:
        """Lay the table out as arrays."""
        self.space = space
        groups = dict(iter(curves.groupby("config")))
        configs = configs[configs["config"].isin(groups)]  # of a recording that has not ended
        self.curves = [_curve(groups[config]) for config in configs["config"]]
        self.parameters: list[dict[str, Any]] = [json.loads(p) for p in configs["parameters"]]
        self.budget = max(int(curve.samples[-1]) for curve in self.curves)
        self.ends = np.array(
            [[curve.metrics[name][-1] for name in OBJECTIVES] for curve in self.curves]
        )
        self.complete = np.array([not curve.diverged for curve in self.curves])
        self._known = space.searched()
        self._columns = {name: column for column, name in enumerate(self._known)}
        self._categorical = np.array([isinstance(node, Choice) for node in self._known.values()])
        self._encoded = np.array([self._encode(given) for given in self.parameters])

    @classmethod
    def read(cls, folder: Path, space: Space) -> Table:
        """Read both files from a folder."""
        names = ("curves.parquet", "configs.parquet")
        curves, configs = (pd.read_parquet(folder / name) for name in names)
        return cls(curves, configs, space)

    def __len__(self) -> int:
        """How many configs, the baseline among them."""
        return len(self.curves)

    # --- the front ---

    @functools.cached_property
    def front(self) -> list[int]:
        """The rows of the full front: complete, better than REFERENCE and beaten by none."""
        rows = np.flatnonzero(self.complete)
        rows = rows[rows != BASELINE]
        ends = self.ends[rows]
        better = (ends[:, 0] > REFERENCE[0]) & (ends[:, 1] < REFERENCE[1])
        return [int(row) for row in rows[nondominated(ends, DIRECTIONS) & better]]

    @functools.cached_property
    def full(self) -> float:
        """The hypervolume of the full front."""
        return hypervolume(self.ends[self.front], DIRECTIONS, REFERENCE)

    def share(self, rows: Sequence[int]) -> float:
        """The hypervolume of what these rows end in, in shares of the full front's."""
        if not rows:
            return 0.0
        return hypervolume(self.ends[list(rows)], DIRECTIONS, REFERENCE) / self.full

    def growing(self) -> list[int]:
        """The rows of the full front whose codebook grows."""
        return [row for row in self.front if _grows(self.parameters[row])]

    # --- the answer to a proposal ---

    def nearest(self, parameters: Mapping[str, Any], unused: npt.NDArray[np.bool_]) -> int | None:
        """The unused row that is nearest to what a search proposes, None where none is left.

        The distance is Gower's: over the parameters that both have, the sum of 0 or 1 for a choice
        and of the difference in shares of the range (of its logarithm where that is what is
        searched) for a number, each with the parameter's `weights`. A parameter that only one of
        the two has adds nothing: the choice that brings it counts itself. From it the row's
        `offsets` are taken, or a row that others crowd would hardly ever be the nearest, and one
        that stands alone would be at once.

        Args:
            parameters: {name: value}, as an Optuna trial has them.
            unused: which rows may answer, [rows]; the baseline never does.
        """
        usable = np.flatnonzero(unused)
        usable = usable[usable != BASELINE]
        if not len(usable):
            return None
        apart = self._distances(parameters, usable) - self.offsets[usable]
        return int(usable[np.argmin(apart)])

    @functools.cached_property
    def offsets(self) -> Floats:
        """What is taken off each row's distance, [rows].

        Found such that proposals drawn at random are answered by every row equally often, as they
        would be if these rows were what had been drawn: cells of a power diagram of equal mass
        (semi-discrete optimal transport, Aurenhammer et al. 1998), by subgradient steps.
        """
        rows = np.arange(1, len(self))
        drawn = _draws(self.space, _DRAWS)
        apart = np.stack([self._distances(given, rows) for given in drawn]).astype(np.float32)
        offsets = np.zeros(len(rows), dtype=np.float32)
        size = 0.05 * apart.std()
        for step in range(_STEPS):
            answers = np.bincount((apart - offsets).argmin(axis=1), minlength=len(rows))
            wanting = 1 - answers * len(rows) / len(drawn)
            offsets += size / (1 + step / 60) * wanting.clip(-3, 1).astype(np.float32)
        return np.concatenate([[0.0], offsets])

    def _distances(self, parameters: Mapping[str, Any], rows: npt.NDArray[np.int64]) -> Floats:
        apart = np.abs(self._encoded[rows] - self._encode(parameters))
        apart = np.where(self._categorical, np.sign(apart), apart)
        found: Floats = np.nan_to_num(apart) @ self.weights
        return found

    @functools.cached_property
    def weights(self) -> Floats:
        """How much each searched parameter counts, [parameters], 1 in all.

        The importance that a forest gives it for the final ranks of both objectives. A value that
        a row lacks is drawn from those of other rows, so that a parameter is not credited with the
        choice that brings it.
        """
        rng = np.random.default_rng(0)
        filled = self._encoded[1:].copy()
        for column in filled.T:
            present = column[~np.isnan(column)]
            absent = np.isnan(column)
            column[absent] = rng.choice(present, absent.sum()) if len(present) else 0.0
        places = np.column_stack([_places(-self.ends[1:, 0]), _places(self.ends[1:, 1])])
        forest = RandomForestRegressor(300, min_samples_leaf=5, random_state=0).fit(filled, places)
        found: Floats = forest.feature_importances_
        return (1 - _EVEN) * found / max(found.sum(), 1e-12) + _EVEN / len(found)

    def _encode(self, parameters: Mapping[str, Any]) -> Floats:
        """Numbers in shares of their range, choices by their place, NaN where there is none."""
        encoded = np.full(len(self._known), np.nan)
        for name, value in parameters.items():
            encoded[self._columns[name]] = _encoded(self._known[name], value)
        return encoded


class _Drawn:
    """A trial whose suggestions are drawn from their distributions, and kept by name."""

    def __init__(self, trial: RandomTrial) -> None:
        self._trial = trial
        self.parameters: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, **more: Any) -> float:
        return self._keep(name, self._trial.suggest_float(name, low, high, **more))

    def suggest_int(self, name: str, low: int, high: int, **more: Any) -> int:
        return self._keep(name, self._trial.suggest_int(name, low, high, **more))

    def suggest_categorical(self, name: str, choices: Sequence[Option]) -> Option:
        return self._keep(name, self._trial.suggest_categorical(name, choices))

    def _keep(self, name: str, value: Any) -> Any:
        self.parameters[name] = value
        return value


def _draws(space: Space, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Parameters of n proposals drawn at random."""
    trial, drawn = RandomTrial(random.Random(seed)), []
    for _ in range(n):
        kept = _Drawn(trial)
        space.suggest(kept)
        drawn.append(kept.parameters)
    return drawn


def _curve(reports: pd.DataFrame) -> Curve:
    ordered = reports.sort_values("samples")
    return Curve(
        samples=ordered["samples"].to_numpy(dtype=np.int64),
        seconds=ordered["seconds"].to_numpy(dtype=np.float64),
        metrics={name: ordered[name].to_numpy(dtype=np.float64) for name in METRICS},
        codes=ordered["size"].to_numpy(dtype=np.int64),
        diverged=bool(ordered["diverged"].iloc[-1]),
    )


def _encoded(node: Parameter, value: Any) -> float:
    if isinstance(node, Choice):
        return float(list(node.branches).index(value))
    scale = np.log if node.log else float
    low, high = scale(node.low), scale(node.high)
    return float((scale(value) - low) / max(high - low, 1e-12))


def _places(costs: Floats) -> Floats:
    """Each row's place by ascending cost, those that are not finite last."""
    order = np.argsort(np.where(np.isfinite(costs), costs, np.inf), kind="stable")
    places = np.empty(len(costs))
    places[order] = np.arange(len(costs))
    return places


def _grows(parameters: Mapping[str, Any]) -> bool:
    return any(
        name.endswith("codebook.growth") and option == "with" for name, option in parameters.items()
    )
