"""A step runs where its tensors are, which is what a GPU asks of it: nothing of it is on the host.

The meta device stands for the GPU. It has no values, so an operator that needs one on the host, or
whose result has as many elements as the values say, raises there: these are the waits.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.config import TrialConfig
from trainables.stack import Stack

META = torch.device("meta")


class Devices(TorchDispatchMode):
    """Notes down the operators that have to do with another device than the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        values = [v for v in tree_leaves((args, kwargs, out)) if isinstance(v, torch.Tensor)]
        if any(value.device != META for value in values):
            self.elsewhere.append(str(func))
        return out


@pytest.fixture(autouse=True)
def _without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "_autocast", lambda _: nullcontext())  # which meta does not know


def elsewhere(config: TrialConfig) -> list[str]:
    """The operators of 20 steps that have to do with another device."""
    dataset = make_dataset()
    stack = Stack([config] * 4, dataset, META, seed=False)
    x = torch.empty(4, config.training.batch_size, *dataset.example_shape, device=META)
    stack.model.train(True)
    with Devices() as devices:
        for _ in range(20):
            stack.run(x, stack.plan())
    return devices.elsewhere


@pytest.mark.parametrize("mix", MIXES)
def test_a_step_is_all_on_one_device(mix: str) -> None:
    # Dropout of levels reads its chances on the host as lanes change hands, never in a step.
    residual = MIXES[mix].get("residual")
    book = MIXES[mix] | ({"residual": residual | {"dropout": 0.0}} if residual else {})
    assert elsewhere(make_config(book, precision="float32")) == []


def test_so_is_one_of_two_levels() -> None:
    values = make_config(MIXES["ema"], precision="float32").to_dict()
    values["model"] = {"kind": "hierarchical", "width": 8, "depth": 1}
    assert elsewhere(TrialConfig.from_dict(values)) == []


@pytest.mark.parametrize("value", [lambda x: float(x.sum()), lambda x: x[x > 0], torch.nonzero])
def test_a_wait_would_raise(value: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        value(torch.empty(3, device=META))


def test_what_comes_from_the_host_would_be_seen() -> None:
    with Devices() as devices:
        torch.empty(3, device=META) * torch.tensor(2.0)
    assert devices.elsewhere
