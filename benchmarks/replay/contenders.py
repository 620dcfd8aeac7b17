"""Who is replayed: vqtune, and what else a user of Ray Tune, Optuna or Syne Tune would run.

All search the same space for the same two objectives. Those that stop early have the first rung
and eta that vqtune has; nobody has a head start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import optuna
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from benchmarks.replay.adapters import (
    AskTell,
    RayScheduler,
    RaySearch,
    SyneTuneScheduler,
    VQTuneSearch,
)
from benchmarks.replay.simulator import Scheduler, Search
from benchmarks.replay.table import Table
from vqtune import early_tpe, layers, outcomes, pareto_asha, rung, scheduler, searcher
from vqtune.packing import LanesFree
from vqtune.scheduler import first_rung, make_scheduler
from vqtune.searcher import VQSearch
from vqtune.spaces import Space


@dataclass(frozen=True)
class Contender:
    """A name for the command line, a label for people, and who proposes and who stops.

    Parameters
    ----------
    name, label : as above
    make : gives both for a table and a seed
    decides : what besides this folder decides in it: packages by name, vqtune's own modules

    """

    name: str
    label: str
    make: Callable[[Table, int], tuple[Search, Scheduler]]
    decides: tuple[str | ModuleType, ...]


def searched(table: Table, **search: Any) -> Space:
    """The table's space without points to try first, for as many trials as there are configs."""
    space = replace(table.space, starts=())
    return space.with_search(trials=len(table), **search)


# --- who stops ---


def _full_length(table: Table) -> Scheduler:
    return RayScheduler(FIFOScheduler())


def _grace(table: Table) -> tuple[int, float]:
    settings = table.space.search
    return first_rung(settings, table.budget), settings.reduction_factor


def _ray_asha(table: Table) -> Scheduler:
    grace, eta = _grace(table)
    asha = AsyncHyperBandScheduler(
        time_attr="samples",
        metric="recon_loss",
        mode="min",
        max_t=table.budget,
        grace_period=grace,
        reduction_factor=eta,
    )
    return RayScheduler(asha)


def _moasha(table: Table, seed: int) -> Scheduler:
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA  # noqa: PLC0415

    grace, eta = _grace(table)

    def make(metrics: list[str]) -> Any:
        # Its own proposals are drawn at random from a flat space; the adapter's come from ours.
        return MOASHA(
            config_space={},
            metrics=metrics,
            time_attr="samples",
            max_t=table.budget,
            grace_period=grace,
            reduction_factor=eta,
            random_seed=seed,
        )

    return SyneTuneScheduler(make)


# --- who proposes ---


def _vqtune(table: Table, seed: int, sampler: str) -> tuple[Search, Scheduler]:
    space = searched(table, sampler=sampler)
    return VQTuneSearch(vqtune_search(space, seed)), vqtune_scheduler(space, table, seed)


def vqtune_search(space: Space, seed: int, lanes_free: LanesFree | None = None) -> VQSearch:
    """Vqtune's own proposals, kept in memory."""
    return VQSearch(
        space,
        optuna.storages.InMemoryStorage(),
        seed,
        {"folder": "replay", "threads": 1, "gpus": 0.0},
        space.baseline().to_dict(),
        lanes_free=lanes_free,
    )


def vqtune_scheduler(space: Space, table: Table, seed: int) -> Scheduler:
    """Vqtune's own early stopping."""
    return RayScheduler(make_scheduler(space.search, table.budget, seed))


def _ray(table: Table, seed: int, sampler: optuna.samplers.BaseSampler | None = None) -> Search:
    return RaySearch(searched(table), sampler, seed)


def _optuna(table: Table, sampler: optuna.samplers.BaseSampler) -> tuple[Search, Scheduler]:
    return AskTell(searched(table), sampler), _full_length(table)


_RAY = ("ray", "optuna")
_OURS = (*_RAY, searcher, early_tpe, outcomes, scheduler, pareto_asha, rung, layers)

CONTENDERS = [
    Contender("vqtune", "vqtune: ParetoASHA + TPE", lambda t, s: _vqtune(t, s, "tpe"), _OURS),
    Contender(
        "vqtune-random", "vqtune: ParetoASHA + random", lambda t, s: _vqtune(t, s, "random"), _OURS
    ),
    Contender(
        "random",
        "random at full length",
        lambda t, s: (_ray(t, s, RandomSampler(seed=s)), _full_length(t)),
        _RAY,
    ),
    Contender("ray", "Ray Tune: OptunaSearch", lambda t, s: (_ray(t, s), _full_length(t)), _RAY),
    Contender(
        "ray-asha",
        "Ray Tune: ASHA + OptunaSearch",
        lambda t, s: (_ray(t, s), _ray_asha(t)),
        _RAY,
    ),
    Contender(
        "ray-asha-random",
        "Ray Tune: ASHA + random",
        lambda t, s: (_ray(t, s, RandomSampler(seed=s)), _ray_asha(t)),
        _RAY,
    ),
    Contender(
        "optuna-tpe",
        "Optuna: TPE, in groups",
        lambda t, s: _optuna(
            t, TPESampler(seed=s, multivariate=True, group=True, constant_liar=True)
        ),
        ("optuna",),
    ),
    Contender(
        "optuna-nsga2",
        "Optuna: NSGA-II",
        lambda t, s: _optuna(t, NSGAIISampler(seed=s)),
        ("optuna",),
    ),
    Contender(
        "moasha",
        "Syne Tune: MOASHA + random",
        lambda t, s: (_ray(t, s, RandomSampler(seed=s)), _moasha(t, s)),
        ("syne-tune", *_RAY),
    ),
]
BY_NAME = {contender.name: contender for contender in CONTENDERS}
