"""What is measured before lanes are chosen, and what is chosen of given figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.calibrate import Calibration, calibrate
from trainables.config import TrialConfig
from trainables.stack import Stack

FASTER = {4: 300.0, 16: 1000.0, 64: 1050.0}


def test_steps_of_a_config_are_timed_alone_and_in_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this CPU, where nothing is captured, whatever the figures are."""
    monkeypatch.setattr("trainables.calibrate.default_device", lambda: torch.device("cpu"))
    config = make_config(MIXES["all"])
    found = calibrate(config.to_dict(), (1, 4), 0.05, make_dataset())
    assert found.plain > 0
    assert found.captured is None
    assert list(found.lanes) == [1, 4]
    assert all(rate > 0 for rate in found.lanes.values())
    assert found.best(1) in (None, 1, 4)
    assert found.told(1).startswith(("lanes: off (", "lanes: 1 a GPU (", "lanes: 4 a GPU ("))


def test_lanes_for_which_there_is_no_memory_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.calibrate.default_device", lambda: torch.device("cpu"))
    advance = Stack.advance

    def short(self: Stack, steps: int) -> None:
        if len(self.trials) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        advance(self, steps)

    monkeypatch.setattr(Stack, "advance", short)
    found = calibrate(make_config().to_dict(), (4, 16, 64), 0.01, make_dataset())
    assert list(found.lanes) == [4]
    assert found.reason == "no memory for 16 lanes"


def unruly(example_shape: tuple[int, ...], dim: int) -> tuple[nn.Module, nn.Module]:
    """A model whose forward pass depends on values."""

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv1d(dim, example_shape[0], 1)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            x: torch.Tensor = self.layer(z)
            return x if x.sum().item() > 0 else x + 0

    return nn.Conv1d(example_shape[0], dim, 1), Decoder()


def test_a_model_that_cannot_be_stacked_has_no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.calibrate.default_device", lambda: torch.device("cpu"))
    values = make_config().to_dict()
    values["model"] = {"kind": "factory", "factory": f"{__name__}:unruly"}
    found = calibrate(TrialConfig.from_dict(values).to_dict(), (4,), 0.01, make_dataset())
    assert not found.lanes
    assert found.best(1) is None
    assert found.reason.startswith("no stacks: decoder: ")


@pytest.mark.parametrize(
    ("captured", "lanes", "at_once", "best"),
    [
        (None, FASTER, 1, 16),  # 64 do hardly better
        (None, FASTER, 4, 16),
        (None, FASTER, 10, None),  # ten trials side by side do as well
        (400.0, {4: 420.0}, 1, None),
        (400.0, {4: 350.0, 16: 900.0}, 1, 16),
        (None, {4: 150.0, 16: 400.0, 64: 1600.0}, 1, 64),
        (None, {}, 1, None),
    ],
)
def test_the_fewest_lanes_are_chosen_that_are_hardly_worse_than_the_best(
    captured: float | None, lanes: dict[int, float], at_once: int, best: int | None
) -> None:
    assert Calibration(100.0, captured, lanes).best(at_once) == best


def test_the_figures_are_told_in_one_line() -> None:
    found = Calibration(1234.5, 5678.0, {4: 20000.0, 16: 60000.0}, "no memory for 64 lanes")
    assert found.told(1) == (
        "lanes: 16 a GPU (samples/s of one GPU: plain 1,234, captured 5,678, 4 lanes 20,000, "
        "16 lanes 60,000, no memory for 64 lanes)"
    )
    assert Calibration(1000.0, None, {4: 600.0}).told(1) == (
        "lanes: off (samples/s of one GPU: plain 1,000, 4 lanes 600)"
    )
