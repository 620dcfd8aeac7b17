"""What a step launches on a GPU, counted without one: operators that are no views."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.conftest import MIXES, make_config, make_dataset
from tests.trainables.test_stack import lanes_of
from trainables.config import TrialConfig
from trainables.stack import Stack

CPU = torch.device("cpu")

# They make tensors without running anything.
FREE = ("aten::empty", "aten::empty_like", "aten::new_empty", "aten::detach", "aten::alias")


class Launches(TorchDispatchMode):
    """Counts operators that compute."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(a.alias_info and not a.alias_info.is_write for a in func._schema.arguments)
        self.count += not view and func.name().split(".")[0] not in FREE
        return func(*args, **(kwargs or {}))


def launches(configs: list[TrialConfig]) -> int:
    """Of one step, data included."""
    stack = Stack(configs, make_dataset(), CPU)
    stack.advance(3)
    with Launches() as counted:
        stack.advance(1)
    return counted.count


@pytest.mark.parametrize("mix", MIXES)
def test_sixteen_lanes_launch_hardly_more_than_one(mix: str) -> None:
    config = make_config(MIXES[mix], samples=800, precision="float32")
    one, sixteen = launches([config]), launches([config] * 16)
    assert sixteen < 1.3 * one, (one, sixteen)
    assert 8 * sixteen / 16 < one  # eight times fewer for each trial


def test_the_default_trial_launches_few() -> None:
    config = TrialConfig.from_dict({"model": {"width": 8}, "codebook": {"size": 16, "dim": 4}})
    assert launches([config]) < 150


# Every mix in the long tests: compiling takes seconds.
ALL = [pytest.param(mix, marks=[pytest.mark.long] * (mix != "all")) for mix in MIXES]


@pytest.mark.parametrize("mix", ALL)
def test_a_step_is_one_graph_without_a_break(mix: str) -> None:
    torch._dynamo.reset()
    dataset, trials = make_dataset(), lanes_of(mix, "float64")[:2]
    compiled, plain = Stack(trials, dataset, CPU), Stack(trials, dataset, CPU)
    compiled.runner = torch.compile(compiled.run, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled.advance(2)
    plain.advance(2)
    for lane in range(2):
        mine, theirs = compiled.lane_state(lane), plain.lane_state(lane)
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-9, atol=1e-10, msg=name)
