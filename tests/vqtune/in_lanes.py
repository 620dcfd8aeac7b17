"""Searches in lanes as tests make them, and what they are compared with."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from tests.vqtune.conftest import SMALL, Searched
from tests.vqtune.test_resume import wait_for
from tests.vqtune.test_three_nodes import reported
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from vqtune.lanes import Pool, Pools

TIMES = {"timestamp", "time_total_s", "seconds", "cpu_seconds", "gpu_seconds", "steps_per_second"}
# Two signatures; in float64, so that what lanes add in another order stays the same to 1e-7.
SPACE = f"""
description: Trials of two signatures that last a second or so
extends: base
search: {{trials: 9, samples: 320, sampler: random, early_stopping: none}}
{SMALL}
    respawn: {{period: {{min: 100, max: 300}}}}
    update:
      choices:
        gradient: {{kind: gradient, lr_ratio: {{min: 0.5, max: 2.0}}}}
        ema: {{kind: ema, decay: {{min: 0.9, max: 0.99}}}}
  training: {{reports: 8, batch_size: 4, precision: float64}}
"""


def noted_pools(monkeypatch: pytest.MonkeyPatch) -> list[Pools]:
    """The pools that searches in this process make from now on."""
    found: list[Pools] = []
    start, close = Pools.__init__, Pools.close

    def noted(self: Pools, *given: Any) -> None:
        start(self, *given)
        found.append(self)

    def closed(self: Pools) -> None:
        assert not any(pool.seats for pool in pools_of([self]))  # all have left
        close(self)

    monkeypatch.setattr(Pools, "__init__", noted)
    monkeypatch.setattr(Pools, "close", closed)
    return found


def pools_of(made: list[Pools]) -> list[Pool]:
    return [pool for pools in made[-1]._of_node.values() for pool in pools]


def process_of(pool: Pool) -> int:
    """The id of a pool's process."""
    pid: int = ray.get(pool.actor.__ray_call__.remote(lambda _: os.getpid()))
    return pid


def assert_near(report: dict[str, Any], other: dict[str, Any]) -> None:
    for name in other.keys() - TIMES:
        mine, theirs = report[name], other[name]
        if isinstance(theirs, float):
            assert math.isclose(mine, theirs, rel_tol=1e-7, abs_tol=1e-7), name
        else:
            assert mine == theirs, name


def check_is_plain(searched: Searched) -> None:
    """Every report of every trial is there once, up to its end, and is that of the trial alone."""
    states = searched.states()
    for name, values in searched.records.configs.items():
        trainer = Trainer(TrialConfig.from_dict(values), device=torch.device("cpu"))
        reports = searched.reports(name)
        whole = len(reports) == trainer.config.training.reports
        assert whole == (states[name] == "complete")
        for report in reports:
            # Not why it was stopped, which is the search's.
            assert_near({**report, "reason": ""}, trainer.advance())


class Once(threading.Thread):
    """Does something when a search has come to so many reports."""

    def __init__(self, run: Path, reports: int, thing: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.reports, self.thing = run, reports, thing
        self.done = False

    def __enter__(self) -> Once:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.join()

    def run(self) -> None:
        if wait_for(lambda: reported(self.run_folder) >= self.reports, 100):
            self.thing()
            self.done = True
