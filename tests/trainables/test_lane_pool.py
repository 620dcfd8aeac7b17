"""Trials in lanes give what they give alone, whoever comes and goes beside them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.config import TrialConfig
from trainables.lane_pool import LanePool
from trainables.lane_stack import SIZES, size_for
from trainables.memory import OutOfMemoryError
from trainables.seat import Seat
from trainables.stack import Stack
from trainables.trainer import Report, Trainer

CPU = torch.device("cpu")
TIMES = ("seconds", "cpu_seconds", "gpu_seconds", "steps_per_second")


def trial(mix: str, seed: int, **settings: Any) -> TrialConfig:
    """One of many trials of one signature, which differ in all that a lane may."""
    settings = {"samples": 800, "reports": 5, "precision": "float64", **settings}
    values = make_config(MIXES[mix], **settings).to_dict()
    values["seed"] = seed
    values["training"]["lr"] = 3e-4 * (1 + seed % 4)
    book = values["codebook"]
    book["commitment"]["beta"] = 0.25 * (1 + seed % 3)
    if book["entropy"]:
        book["entropy"]["weight"] = 0.05 * (seed % 3)  # none in some lanes
    if book["respawn"]:
        book["respawn"]["period"] = 12 + 4 * (seed % 5)
    for growing in ("growth", "dim_growth"):
        if book[growing]:
            book[growing]["at"] = 0.1 + 0.1 * (seed % 4)
    if book["residual"]:
        book["residual"]["dropout"] = 0.25 * (seed % 3)
    return TrialConfig.from_dict(values)


def plain(config: TrialConfig) -> list[Report]:
    """The reports of a trial alone."""
    trainer, reports = Trainer(config, make_dataset(), CPU), []
    while not trainer.done:
        reports.append(trainer.advance())
    return reports


def in_lanes(
    pool: LanePool, configs: list[TrialConfig], at_once: int, leaving: frozenset[int], chance: float
) -> dict[int, list[Report]]:
    """Train configs in a pool, some of which leave after their second report.

    A trial asks for its next report after a random number of turns, as its handle would.
    """
    draw, dataset = random.Random(0), make_dataset()
    waiting, reports = list(enumerate(configs)), dict[int, list[Report]]()
    seats: dict[Seat, int] = {}
    while waiting or seats:
        while waiting and len(seats) < at_once:
            number, config = waiting.pop(0)
            seats[pool.join(Trainer(config, dataset, CPU))] = number
            reports[number] = []
        for seat in seats:
            seat.asked = seat.asked or draw.random() < chance
        if not pool.busy:
            continue
        due, failed = pool.turn()
        assert not failed
        for seat in due:
            mine = reports[seats[seat]]
            mine.append(seat.trainer.report)
            if seat.trainer.done or (seats[seat] in leaving and len(mine) == 2):
                pool.leave(seat)
                del seats[seat]
    assert pool.seats == 0
    return reports


def assert_same(report: Report, alone: Report, rtol: float) -> None:
    assert report.keys() == alone.keys()
    for name, value in alone.items():
        if name in TIMES:
            continue
        if isinstance(value, float):
            assert math.isclose(report[name], value, rel_tol=rtol, abs_tol=rtol), name
        else:
            assert report[name] == value, name


@pytest.mark.parametrize("mix", ["plain", "all", "all gradient", "grouped residual", "residual"])
def test_every_report_is_that_of_the_trial_alone_in_float64(mix: str) -> None:
    """200 steps a trial, in stacks of 1, 4 and 16, with joins, leaves, respawns and growth."""
    configs = [trial(mix, seed) for seed in range(9)]
    reports = in_lanes(LanePool(16), configs, 6, frozenset({1, 4}), 0.6)
    for number, mine in reports.items():
        alone = plain(configs[number])
        assert len(mine) == (2 if number in (1, 4) else 5)
        for report, theirs in zip(mine, alone, strict=False):
            assert_same(report, theirs, 1e-7)
