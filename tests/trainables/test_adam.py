"""LaneAdam is torch's Adam, a separate one for each lane."""

from __future__ import annotations

import pytest
import torch

from trainables.adam import LaneAdam

SHAPES = {"kernel": (4, 3, 3), "bias": (4,), "scale": (), "codes": (7, 2)}


def parameters(lanes: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(lanes, *shape, generator=generator, dtype=dtype)
        for name, shape in SHAPES.items()
    }


def gradients(lanes: int, step: int) -> dict[str, torch.Tensor]:
    """Of many magnitudes, and zero at times."""
    generator = torch.Generator().manual_seed(step)
    scale = 10.0 ** (step % 7 - 4) * (step % 5 != 0)
    return {
        name: scale * torch.randn(lanes, *shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def torch_steps(
    name: str, lanes: int, lane: int, lr: float, steps: range
) -> tuple[torch.Tensor, torch.Tensor]:
    """What torch.optim.Adam makes of one lane's parameter, and what it was before."""
    before = parameters(lanes)[name][lane]
    parameter = before.clone().requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=lr)
    for step in steps:
        parameter.grad = gradients(lanes, step)[name][lane]
        optimiser.step()
    return parameter.detach(), before


def take_step(adam: LaneAdam, step: int) -> None:
    adam.step(list(gradients(len(adam.lr), step).values()))


@pytest.mark.parametrize("rates", [[1e-2], [1e-3, 1e-2, 0.3]], ids=["one lane", "three lanes"])
def test_each_lane_equals_its_own_torch_adam_in_float64(rates: list[float]) -> None:
    lanes = len(rates)
    adam = LaneAdam(parameters(lanes), torch.tensor(rates, dtype=torch.float64))
    for step in range(200):
        take_step(adam, step)
    for name, value in adam.parameters.items():
        for lane, lr in enumerate(rates):
            expected, before = torch_steps(name, lanes, lane, lr, range(200))
            assert (expected - before).abs().max() > lr
            torch.testing.assert_close(value[lane].detach(), expected, rtol=1e-12, atol=1e-12)


def test_the_first_step_moves_by_the_learning_rate() -> None:
    adam = LaneAdam({"x": torch.zeros(2, 3)}, torch.tensor([0.1, 0.01]))
    adam.step([torch.tensor([[5.0, -0.1, 0.0], [5.0, -0.1, 0.0]])])
    expected = torch.tensor([[-0.1, 0.1, 0.0], [-0.01, 0.01, 0.0]])
    torch.testing.assert_close(adam.parameters["x"].detach(), expected, rtol=1e-5, atol=1e-9)


def test_a_lane_that_joins_later_has_its_own_bias_correction() -> None:
    initial = parameters(2)
    adam = LaneAdam(initial, torch.tensor([1e-2, 1e-2], dtype=torch.float64))
    for step in range(30):
        take_step(adam, step)
    with torch.no_grad():
        adam.steps[1] = 0
        for name, value in adam.parameters.items():
            value[1] = initial[name][1]
        for moment in adam.moments().values():
            for value in moment.values():
                value[1] = 0
    for step in range(30, 60):
        take_step(adam, step)
    assert adam.steps.tolist() == [60, 30]
    for name, value in adam.parameters.items():
        through, _ = torch_steps(name, 2, 0, 1e-2, range(60))
        torch.testing.assert_close(value[0].detach(), through, rtol=1e-12, atol=1e-12)
        expected, _ = torch_steps(name, 2, 1, 1e-2, range(30, 60))
        torch.testing.assert_close(value[1].detach(), expected, rtol=1e-12, atol=1e-12)


def test_parameters_and_moments_are_contiguous_views_of_the_buffers() -> None:
    initial = parameters(3)
    adam = LaneAdam(initial, torch.full((3,), 0.1, dtype=torch.float64))
    take_step(adam, 1)
    views = [adam.parameters, *adam.moments().values()]
    for values, flat in zip(views, (adam.flat, adam.mean, adam.square), strict=True):
        assert [v.shape for v in values.values()] == [v.shape for v in initial.values()]
        assert all(value.is_contiguous() for value in values.values())
        joined = torch.cat([value.detach().reshape(-1) for value in values.values()])
        assert torch.equal(joined, flat.detach())
    before = adam.parameters["bias"]
    take_step(adam, 2)
    assert adam.parameters["bias"] is before  # changed in place: views elsewhere stay true
    assert torch.equal(initial["bias"], parameters(3)["bias"])  # what was given is copied
