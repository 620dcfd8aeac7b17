"""Trials in lanes give what they give alone, whoever comes and goes beside them."""

from __future__ import annotations

import math
import random
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.config import TrialConfig
from trainables.lane_pool import LanePool
from trainables.lane_stack import SIZES, size_for
from trainables.memory import OutOfMemoryError
from trainables.meter import Meter
from trainables.seat import Seat
from trainables.stack import Plans, Stack
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


LONG = ["all gradient", "grouped residual", "dim growth", "buffer", "batch norm", "stochastic"]


@pytest.mark.parametrize("mix", ["all", *(pytest.param(m, marks=pytest.mark.long) for m in LONG)])
def test_every_report_is_that_of_the_trial_alone_in_float64(mix: str) -> None:
    """200 steps a trial, in stacks of 1, 4 and 16, with joins, leaves, respawns and growth."""
    configs = [trial(mix, seed) for seed in range(7)]
    reports = in_lanes(LanePool(16), configs, 6, frozenset({1, 4}), 0.6)
    for number, mine in reports.items():
        alone = plain(configs[number])
        assert len(mine) == (2 if number in (1, 4) else 5)
        for report, theirs in zip(mine, alone, strict=False):
            assert_same(report, theirs, 1e-7)


def test_sizes_are_few_and_never_more_than_allowed() -> None:
    assert [size_for(n, 128) for n in (1, 2, 4, 5, 17, 65)] == [1, 4, 4, 16, 64, 128]
    assert [size_for(n, 6) for n in (1, 2, 5, 6)] == [1, 4, 6, 6]
    assert {size_for(n, 128) for n in range(1, 129)} == set(SIZES)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the stacks that trained, turn by turn."""
    found, train = [], Stack.train

    def noted(stack: Stack, steps: int, progress: Any = None) -> None:
        found.append(len(stack.trials))
        train(stack, steps, progress)

    monkeypatch.setattr(Stack, "train", noted)
    return found


def test_a_stack_grows_with_those_who_come_and_shrinks_behind_those_who_leave(
    sizes: list[int],
) -> None:
    configs = [trial("plain", seed, samples=80 if seed else 2000) for seed in range(6)]
    in_lanes(LanePool(16), configs, 6, frozenset(), 1.0)
    changes = [size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] != size]
    assert changes == [16, 1]


def test_neighbours_of_one_who_leaves_do_not_change_by_a_bit() -> None:
    dataset = make_dataset()

    def states(leaver: bool) -> list[dict[str, torch.Tensor]]:
        pool = LanePool(4)
        seats = [
            pool.join(Trainer(trial("all", seed, precision="float32"), dataset, CPU))
            for seed in range(4)
        ]
        for round_ in range(3):
            if leaver and round_ == 1:
                pool.leave(seats.pop(1))
                # One that diverges at once takes the lane.
                wild = trial("all", 9, precision="float32").to_dict()
                wild["training"]["lr"] = 10.0
                seats.append(pool.join(Trainer(TrialConfig.from_dict(wild), dataset, CPU)))
            for seat in seats:
                seat.asked = True
            while pool.busy:
                pool.turn()
        return [seat.trainer.held or {} for seat in seats if seat.trainer.config.seed in (0, 2, 3)]

    for mine, theirs in zip(states(True), states(False), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_trial_goes_on_from_its_checkpoint_in_another_pool(tmp_path: Path) -> None:
    configs, dataset = [trial("all", seed) for seed in range(3)], make_dataset()
    pool = LanePool(4)
    seats = [pool.join(Trainer(config, dataset, CPU)) for config in configs]
    for number, seat in enumerate(seats):
        (tmp_path / str(number)).mkdir()
        seat.asked = True
    while pool.busy:
        due, _ = pool.turn()
        for seat in due:
            # The lane of one that has reported trains on: what is saved is the report's state.
            seat.trainer.save(tmp_path / str(seat.trainer.config.seed))
    other, later = LanePool(4), []
    for config in configs:
        trainer = Trainer(config, dataset, CPU)
        trainer.load(tmp_path / str(config.seed))
        later.append(other.join(trainer))
    while not all(seat.trainer.done for seat in later):
        for seat in later:
            seat.asked = not seat.trainer.done
        other.turn()
    for seat in later:
        assert_same(seat.trainer.report, plain(seat.trainer.config)[-1], 1e-7)


def test_a_stack_too_large_for_the_device_becomes_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, init = Stack.run, Stack.__init__
    large: list[weakref.ref[Stack]] = []
    in_the_way: list[weakref.ref[Stack]] = []

    def made(stack: Stack, *arguments: Any, **more: Any) -> None:
        in_the_way.extend(ref for ref in large if ref() is not None)
        init(stack, *arguments, **more)

    def short(stack: Stack, x: torch.Tensor, plans: Plans) -> None:
        if len(stack.trials) <= 4:
            run(stack, x, plans)
            return
        large.append(weakref.ref(stack))
        for parameter in stack.adam.parameters.values():  # the step is half done
            parameter.detach().fill_(7.0)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. And so on")

    monkeypatch.setattr(Stack, "run", short)
    monkeypatch.setattr(Stack, "__init__", made)
    configs = [trial("all", seed, samples=240) for seed in range(7)]
    reports = in_lanes(LanePool(16), configs, 7, frozenset(), 1.0)
    assert large
    assert not in_the_way
    for number, mine in reports.items():
        for report, theirs in zip(mine, plain(configs[number]), strict=True):
            assert_same(report, theirs, 1e-7)


def test_a_trial_too_large_for_a_stack_of_one_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Stack.train

    def short(stack: Stack, steps: int) -> None:
        if stack.batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. And so")
        train(stack, steps)

    monkeypatch.setattr(Stack, "train", short)
    pool, dataset = LanePool(4), make_dataset()
    large = pool.join(Trainer(trial("plain", 0, batch_size=8), dataset, CPU))
    others = [pool.join(Trainer(trial("plain", seed), dataset, CPU)) for seed in (1, 2)]
    for seat in (large, *others):
        seat.asked = True
    failures: dict[Seat, OutOfMemoryError] = {}
    while pool.busy:
        failures |= pool.turn()[1]
    assert list(failures) == [large]
    assert str(failures[large]).startswith("out of memory at batch_size 8")
    assert pool.seats == 2
    assert all(seat.trainer.reports == 1 for seat in others)


def test_a_model_that_cannot_be_stacked_has_stacks_of_one(sizes: list[int]) -> None:
    values = trial("plain", 0, samples=240).to_dict()
    values["model"] = {"kind": "factory", "factory": f"{__name__}:with_dropout"}
    configs = [TrialConfig.from_dict(values | {"seed": seed}) for seed in range(3)]
    reports = in_lanes(LanePool(16), configs, 3, frozenset(), 1.0)
    assert set(sizes) == {1}
    for number, mine in reports.items():
        assert_same(mine[-1], plain(configs[number])[-1], 1e-12)


def with_dropout(example_shape: tuple[int, ...], dim: int) -> tuple[torch.nn.Module, ...]:
    """A model whose lanes draw from torch's own generator."""
    channels = example_shape[0]
    encoder = torch.nn.Sequential(torch.nn.Conv1d(channels, dim, 3, padding=1), torch.nn.Dropout())
    return encoder, torch.nn.Conv1d(dim, channels, 3, padding=1)


def test_what_a_stack_takes_is_shared_by_those_in_it() -> None:
    pool, dataset = LanePool(4), make_dataset()
    trainers = [Trainer(trial("plain", seed, samples=2000), dataset, CPU, 1.0) for seed in range(4)]
    seats = [pool.join(trainer) for trainer in trainers]
    meter = Meter()
    while not all(trainer.done for trainer in trainers):
        for seat in seats:
            seat.asked = not seat.trainer.done
        pool.turn()
    took, costs = meter.seconds, [trainer.report["gpu_seconds"] for trainer in trainers]
    assert 0.7 * took < sum(costs) <= took
    assert max(costs) < 1.2 * min(costs)
    # Each was there all the time.
    assert all(0.7 * took < trainer.report["seconds"] <= took for trainer in trainers)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_lanes_differ_less_from_trials_alone_than_seeds_do() -> None:
    configs = [trial("all", 4 * seed, samples=8000, precision="auto") for seed in range(8)]
    pool, dataset = LanePool(16), make_dataset()
    seats = [pool.join(Trainer(config, dataset)) for config in configs]
    while not all(seat.trainer.done for seat in seats):
        for seat in seats:
            seat.asked = not seat.trainer.done
        pool.turn()
    for name in ("perplexity", "recon_loss"):
        mine, theirs = [seat.trainer.report[name] for seat in seats], []
        for config in configs:
            alone = Trainer(config, dataset)
            while not alone.done:
                alone.advance()
            theirs.append(alone.report[name])
        spread = torch.tensor(theirs).std()
        apart = (torch.tensor(mine) - torch.tensor(theirs)).abs()
        assert apart.mean() < spread, name
