"""Lanes give what single trials give; the step never waits; a resumed trial is the same trial."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.conftest import MIXES, make_config, make_dataset, no_waits
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.evaluation import Evaluator
from trainables.stack import Stack

CPU = torch.device("cpu")


def lanes_of(mix: str, precision: str) -> list[TrialConfig]:
    """Four trials of one signature that differ in everything a lane may."""
    values = make_config(MIXES[mix], precision=precision).to_dict()
    trials = []
    for i in range(4):
        values["seed"] = 10 + i
        values["training"]["lr"] = 3e-4 * (i + 1)
        book = values["codebook"]
        book["commitment"]["beta"] = 0.25 * (i + 1)
        if book["update"]["kind"] == "ema":
            book["update"]["decay"] = 0.8 + 0.05 * i
        elif "lr_ratio" in book["update"]:
            book["update"]["lr_ratio"] = 1.0 + i
        if book["respawn"]:
            book["respawn"]["period"] = 12 + 4 * i
        for growing in ("growth", "dim_growth"):
            if book[growing]:
                book[growing]["at"] = 0.2 + 0.1 * i
        if book["stochastic"]:
            book["stochastic"]["temperature"] = 0.5 + 0.5 * i
        if book["residual"]:
            book["residual"]["dropout"] = 0.25 * i
        trials.append(TrialConfig.from_dict(values))
    return trials


@pytest.mark.parametrize("mix", MIXES)
def test_four_lanes_equal_four_trials_exactly_in_float64(mix: str) -> None:
    dataset = make_dataset()
    trials = lanes_of(mix, "float64")
    together = Stack(trials, dataset, CPU)
    together.advance(20)
    for i, trial in enumerate(trials):
        alone = Stack([trial], dataset, CPU)
        alone.advance(20)
        theirs, mine = together.lane_state(i), alone.lane_state(0)
        assert theirs.keys() == mine.keys()
        for name, value in mine.items():
            # Rounding, 1e-17 after a step, grows fastest through the sharp softmax of `all`; a
            # bias before a batch norm has no gradient but rounding, which Adam enlarges.
            atol = 1e-8 if "normalization" in MIXES[mix] else 1e-10
            torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=atol, msg=name)
        assert mine["finite"]


def copied(totals: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: total.clone() for name, total in totals.items()}


@pytest.mark.parametrize("mix", MIXES)
def test_four_lanes_equal_four_trials_in_float32(mix: str) -> None:
    dataset = make_dataset()
    # The encoder's last bias has no effect before a batch norm: it follows rounding noise, which
    # Adam makes as large as any other gradient.
    tolerance = 1e-3 if "normalization" in MIXES[mix] else 1e-5
    trials = lanes_of(mix, "float32")
    together, losses = Stack(trials, dataset, CPU), []
    alone = [Stack([trial], dataset, CPU) for trial in trials]
    for _ in range(20):
        together.advance(1)
        for stack in alone:
            stack.advance(1)
        losses.append((copied(together.totals), [copied(stack.totals) for stack in alone]))
    for mine, theirs in losses:
        singly = {name: torch.cat([totals[name] for totals in theirs]) for name in mine}
        whole = sum(singly.values())  # small terms are held to the scale of the whole loss
        for name, value in mine.items():
            assert ((value - singly[name]).abs() <= tolerance * whole).all(), name


def test_lanes_differ_from_each_other() -> None:
    stack = Stack(lanes_of("all", "float64"), make_dataset(), CPU)
    stack.advance(20)
    first, second = stack.lane_state(0), stack.lane_state(1)
    assert not torch.equal(first["codebook.codebook"], second["codebook.codebook"])


@pytest.mark.parametrize("mix", ["all", "all gradient"])
def test_a_diverged_lane_leaves_its_neighbours_alone(mix: str) -> None:
    dataset = make_dataset()
    trials = lanes_of(mix, "float64")
    healthy, poisoned = Stack(trials, dataset, CPU), Stack(trials, dataset, CPU)
    for value in poisoned.adam.parameters.values():
        with torch.no_grad():
            value[1] = torch.nan
    for stack in (healthy, poisoned):
        stack.advance(20)
    assert poisoned.finite.tolist() == [True, False, True, True]
    for lane in (0, 2, 3):
        mine, theirs = poisoned.lane_state(lane), healthy.lane_state(lane)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_trials_of_different_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="same signature"):
        Stack([make_config(), make_config({"size": 8})], make_dataset(), CPU)


WAITS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique_consecutive",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
}


class CountWaits(TorchDispatchMode):
    """Counts operators whose result the host must wait for, or whose shape depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        boolean_index = name in ("aten::index", "aten::index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITS or boolean_index:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mix", MIXES)
def test_the_step_never_waits_for_the_device(mix: str) -> None:
    stack = Stack([make_config(MIXES[mix], samples=160)], make_dataset(), CPU)
    with CountWaits() as mode:
        stack.advance(40)
    assert mode.found == []


def test_the_check_for_waits_sees_them() -> None:
    with CountWaits() as mode:
        x = torch.arange(4)
        float(x[0])
        x[x > 1]
        x.nonzero()
    assert len(mode.found) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mix", MIXES)
def test_the_step_never_waits_for_a_gpu(mix: str) -> None:
    stack = Stack([make_config(MIXES[mix], samples=8000)], make_dataset())
    stack.advance(200)  # libraries choose their algorithms, and what comes up again is recorded
    with no_waits():
        stack.advance(1000)


@pytest.mark.parametrize("mix", MIXES)
def test_a_lane_goes_on_from_its_saved_state_exactly(mix: str) -> None:
    dataset, trial = make_dataset(), make_config(MIXES[mix])
    through = Stack([trial], dataset, CPU)
    through.advance(9)
    saved, samples = through.lane_state(0), through.samples[0]
    through.advance(11)
    resumed = Stack([trial], dataset, CPU)
    resumed.load_lane(0, saved, samples)
    resumed.advance(11)
    mine, theirs = resumed.lane_state(0), through.lane_state(0)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert Evaluator(resumed, dataset).evaluate()[0] == Evaluator(through, dataset).evaluate()[0]


def test_a_foreign_state_is_refused() -> None:
    dataset = make_dataset()
    small = Stack([make_config({"size": 8})], dataset, CPU).lane_state(0)
    stack = Stack([make_config()], dataset, CPU)
    with pytest.raises(InputError, match=r"shape \(8, 4\).*allowed: \(16, 4\)"):
        stack.load_lane(0, small, 0)
    del small["samples"]
    with pytest.raises(InputError, match="'samples' is on one side only"):
        stack.load_lane(0, small, 0)
