"""A user's modules in one pass over all lanes, against the same lanes one after another."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.conftest import make_config, make_dataset
from trainables.config import TrialConfig
from trainables.config_model import FactoryModel
from trainables.evaluation import Evaluator
from trainables.model import one_lane
from trainables.model_kinds import build_model
from trainables.module_model import ModuleModel
from trainables.stack import Stack
from trainables.stacked_modules import run_in_turn, run_stacked

CPU = torch.device("cpu")
SHAPE, DIM = (6, 8), 4


class Through(nn.Module):
    """A convolution, and what a function makes of it."""

    def __init__(self, channels: int, dim: int, then: Callable[[Through, Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution, self.then = nn.Conv1d(channels, dim, 3, padding=1), then
        self.shared = torch.zeros((), dtype=torch.float64)
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, self.convolution(x))


class Attention(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.into = nn.Conv1d(channels, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Conv1d(8, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x).transpose(1, 2)
        return self.out(self.attention(h, h, h)[0].transpose(1, 2))


class Transformer(nn.Module):
    def __init__(self, channels: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.into = nn.Conv1d(channels, 8, 1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)
        self.out = nn.Conv1d(8, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.into(x).transpose(1, 2)).transpose(1, 2))


class Recurrent(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)


class LayerNormed(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(channels, dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x.transpose(1, 2))).transpose(1, 2)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


def convolved(channels: int, dim: int, *more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(channels, 8, 3, padding=1), *more, nn.Conv1d(8, dim, 1))


def half_frozen(channels: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Conv1d(channels, 8, 1).requires_grad_(False), nn.Conv1d(8, dim, 1))


def on_shapes(module: Through, h: Tensor) -> Tensor:
    return F.pad(h, (0, 1))[..., :-1] if h.shape[-1] % 2 else h + h.shape[0]


def running_mean(module: Through, h: Tensor) -> Tensor:
    module.mean.mul_(0.9).add_(h.detach().mean((0, 2)), alpha=0.1)
    return h - module.mean[:, None]


def left_behind(module: Through, h: Tensor) -> Tensor:
    module.shared = 0.9 * module.shared + h.detach().mean()
    return h + module.shared


STACKABLE: dict[str, Callable[[int, int], nn.Module]] = {
    "convolutions": lambda c, d: convolved(c, d, nn.ReLU(inplace=True)),
    "strides": lambda c, d: nn.Sequential(
        nn.Conv1d(c, 8, 4, 2, 1), nn.GELU(), nn.ConvTranspose1d(8, d, 4, 2, 1)
    ),
    "batch norm": lambda c, d: convolved(c, d, nn.BatchNorm1d(8), nn.ReLU()),
    "group norm": lambda c, d: convolved(c, d, nn.GroupNorm(2, 8)),
    "layer norm": LayerNormed,
    "weight norm": lambda c, d: nn.utils.parametrizations.weight_norm(nn.Conv1d(c, d, 1)),
    "products": lambda c, d: nn.Sequential(
        Through(c, 8, lambda _, h: h @ h.transpose(1, 2) @ h), nn.Conv1d(8, d, 1)
    ),
    "attention": Attention,
    "transformer": lambda c, d: Transformer(c, d, 0.0),
    "frozen": half_frozen,
    "nothing trained": lambda c, d: nn.Conv1d(c, d, 1).requires_grad_(False),
    "no dropout": lambda c, d: convolved(c, d, nn.Dropout(0.0)),
    "branch on shapes": lambda c, d: Through(c, d, on_shapes),
    "own running mean": lambda c, d: Through(c, d, running_mean),
    "straight through": lambda c, d: Through(c, d, lambda _, h: h + (h.round() - h).detach()),
}

IN_TURN: dict[str, tuple[Callable[[int, int], nn.Module], str]] = {
    "dropout": (
        lambda c, d: convolved(c, d, nn.Dropout(0.5)),
        "Dropout draws random numbers, and each lane has a seed of its own",
    ),
    "transformer's dropout": (lambda c, d: Transformer(c, d, 0.1), "draws random numbers"),
    "noise": (
        lambda c, d: Through(c, d, lambda _, h: h + torch.randn(()) * h.mean()),
        "Through draws random numbers",
    ),
    "Python's noise": (
        lambda c, d: Through(c, d, lambda _, h: h * random.random()),
        "draws random numbers of Python or NumPy",
    ),
    "NumPy's noise": (
        lambda c, d: Through(c, d, lambda _, h: h * np.random.rand()),
        "draws random numbers of Python or NumPy",
    ),
    "item": (
        lambda c, d: Through(c, d, lambda _, h: h * h.square().mean().item()),
        "Through takes a value to the host (.item(), float())",
    ),
    "average of all batches": (
        lambda c, d: convolved(c, d, nn.BatchNorm1d(8, momentum=None)),
        "BatchNorm1d takes a value to the host (.item(), float())",
    ),
    "branch on values": (
        lambda c, d: Through(c, d, lambda _, h: h if h.mean() > 0 else -h),
        "Through branches on the values of a tensor",
    ),
    "shape of values": (
        lambda c, d: Through(c, d, lambda _, h: h + h[h > 0].sum()),
        "Through makes a tensor whose shape depends on values",
    ),
    "function without a rule": (
        lambda c, d: Through(c, d, lambda _, h: Doubled.apply(h)),
        "Through calls an autograd.Function without a vmap rule",
    ),
    "NumPy": (
        lambda c, d: Through(c, d, lambda _, h: h * float(h.detach().numpy().mean())),
        "Through reads a tensor's memory (.numpy(), .tolist())",
    ),
    "recurrent": (Recurrent, "LSTM needs aten::lstm, which has no batching rule"),
    "shared state": (
        lambda c, d: Through(c, d, lambda m, h: h + m.shared.add_(h.detach().mean())),
        "Through raises under vmap RuntimeError: ",
    ),
    "state left behind": (
        lambda c, d: Through(c, d, left_behind),
        "gives other outputs in one pass than lane by lane",
    ),
}


def build(example_shape: tuple[int, ...], dim: int, name: str, side: str = "both") -> Any:
    """The named module as encoder and decoder, or on one side of a convolution."""
    make = STACKABLE[name] if name in STACKABLE else IN_TURN[name][0]
    channels = example_shape[0]
    encoder, decoder = nn.Conv1d(channels, dim, 1), nn.Conv1d(dim, channels, 1)
    return (
        encoder if side == "decoder" else make(channels, dim),
        decoder if side == "encoder" or name == "nothing trained" else make(dim, channels),
    )


def images(example_shape: tuple[int, ...], dim: int) -> Any:
    channels = example_shape[0]
    encoder = nn.Sequential(
        nn.Conv2d(channels, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, dim, 1)
    )
    decoder = nn.Sequential(
        nn.Conv2d(dim, 8, 3, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(8, channels, 1)
    )
    return encoder, decoder


def deep(example_shape: tuple[int, ...], dim: int) -> Any:
    """Down by four and up again."""
    channels = example_shape[0]
    encoder = nn.Sequential(
        nn.Conv1d(channels, 16, 4, 2, 1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 16, 4, 2, 1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv1d(16, dim, 1),
    )
    decoder = nn.Sequential(
        nn.ConvTranspose1d(dim, 16, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose1d(16, channels, 4, 2, 1),
    )
    return encoder, decoder


def block_of(factory: str, **arguments: Any) -> dict[str, Any]:
    return {"kind": "factory", "factory": f"{__name__}:{factory}", "arguments": arguments}


def model_of(factory: str, shape: tuple[int, ...] = SHAPE, **arguments: Any) -> ModuleModel:
    model = build_model(FactoryModel(**block_of(factory, **arguments)), shape, DIM)
    assert isinstance(model, ModuleModel)
    return model


def trials_of(block: dict[str, Any], precision: str = "float64") -> list[TrialConfig]:
    """Four lanes of different seeds and settings."""
    lanes = []
    for lane in range(4):
        codebook = {"update": {"kind": "ema", "decay": 0.8 + 0.04 * lane}}
        config = make_config(codebook, lr=1e-3 * (1 + lane), precision=precision)
        lanes.append(TrialConfig.from_dict(config.to_dict() | {"seed": lane, "model": block}))
    return lanes


def assert_lanes_equal_single_trials(block: dict[str, Any], atol: float = 1e-10) -> None:
    dataset, trials = make_dataset(), trials_of(block)
    together = Stack(trials, dataset, CPU)
    together.advance(5)
    states = [together.lane_state(lane) for lane in range(4)]
    metrics, _ = Evaluator(together, dataset).evaluate()
    for lane, trial in enumerate(trials):
        alone = Stack([trial], dataset, CPU)
        alone.advance(5)
        theirs = states[lane]
        for name, value in alone.lane_state(0).items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=atol, msg=name)
        singly = Evaluator(alone, dataset).evaluate()[0][0]
        assert metrics[lane] == pytest.approx(singly, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", STACKABLE)
def test_four_lanes_in_one_pass_equal_four_trials_in_float64(name: str) -> None:
    assert model_of("build", name=name).unstackable is None
    # A bias before a batch norm has no gradient but rounding, which Adam enlarges.
    atol = 1e-6 if name == "batch norm" else 1e-10
    assert_lanes_equal_single_trials(block_of("build", name=name), atol)


@pytest.mark.parametrize("name", ["dropout", "transformer's dropout", "item", "recurrent"])
def test_four_lanes_in_turn_equal_four_trials_in_float64(name: str) -> None:
    assert_lanes_equal_single_trials(block_of("build", name=name))


@pytest.mark.parametrize(
    ("name", "side"), [*((name, "encoder") for name in IN_TURN), ("dropout", "decoder")]
)
def test_a_model_that_runs_lane_by_lane_says_why(name: str, side: str) -> None:
    reason = model_of("build", name=name, side=side).unstackable
    assert reason is not None
    assert reason.startswith(f"{side}: ")
    assert IN_TURN[name][1] in reason
    assert reason.isprintable()


def test_our_own_models_run_in_one_pass() -> None:
    for kind in ("conv", "hierarchical"):
        config = TrialConfig.from_dict({"model": {"kind": kind, "width": 8, "depth": 1}})
        assert build_model(config.model, SHAPE, DIM).unstackable is None


def of_lanes(model: ModuleModel, lanes: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters, to be trained, and buffers of lanes of different seeds."""
    trained = model.initial(0)
    values = [model.initial(seed) | model.buffers() for seed in range(lanes)]
    stacked = {name: torch.stack([lane[name] for lane in values]) for name in values[0]}
    cast = {k: v.to(dtype if v.is_floating_point() else None) for k, v in stacked.items()}
    return {name: v.requires_grad_(name in trained) for name, v in cast.items()}


def test_images_in_one_pass_equal_those_in_turn() -> None:
    model = model_of("images", (3, 8, 8))
    assert model.unstackable is None
    together, alone = (of_lanes(model, 3, torch.float64) for _ in range(2))
    x = torch.randn(3, 4, 3, 8, 8, dtype=torch.float64)
    for mode in (True, False):
        model.train(mode)
        x_hat = model.decode(together, model.encode(together, x))
        for lane in range(3):
            own = {name: value[lane : lane + 1] for name, value in alone.items()}
            one = model.decode(own, model.encode(own, x[lane : lane + 1]))
            torch.testing.assert_close(x_hat[lane], one[0])
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name])
    assert together["encoder.1.num_batches_tracked"].tolist() == [1, 1, 1]


def test_one_pass_under_autocast_gives_the_same_to_its_rounding() -> None:
    model = model_of("deep")
    values = {
        k.removeprefix("encoder."): v
        for k, v in of_lanes(model, 3, torch.float32).items()
        if k.startswith("encoder.")
    }
    x = torch.randn(3, 4, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        together, alone = (run(model.encoder, values, x) for run in (run_stacked, run_in_turn))
    assert alone.dtype == torch.bfloat16
    torch.testing.assert_close(together.float(), alone.float(), rtol=0.02, atol=0.02)


def test_buffers_that_do_not_lie_in_one_piece_are_changed_too() -> None:
    module = nn.BatchNorm1d(DIM).double()
    x = torch.randn(3, 5, DIM, dtype=torch.float64)
    values = {name: torch.stack([v.detach()] * 3) for name, v in module.state_dict().items()}
    scattered = {name: torch.stack([v, v], dim=1)[:, 0] for name, v in values.items()}
    for buffers in (values, scattered):
        run_stacked(module, buffers, x)
    assert not scattered["running_mean"].is_contiguous()
    torch.testing.assert_close(values["running_mean"], 0.1 * x.mean(1))
    for name, value in values.items():
        torch.testing.assert_close(scattered[name], value)


def test_the_check_leaves_generators_and_modules_as_they_were() -> None:
    model = model_of("build", name="batch norm")
    model.train(False)
    before = model.encoder.state_dict()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert model.unstackable is None
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert not model.encoder.training
    after = model.encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_single_trial_calls_the_module_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.module_model.run_stacked", None)
    monkeypatch.setattr("trainables.module_model.why_in_turn", None)
    model = model_of("deep")
    values = one_lane(model)
    x = torch.randn(4, *SHAPE)
    model.train(True)
    [z] = model.encode(values, x.unsqueeze(0))
    assert torch.equal(z[0], model.encoder(x))


class Launches(TorchDispatchMode):
    """Counts operators that compute: all but views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [one.alias_info for one in func._schema.returns]
        self.count += not any(alias and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


def launches(model: ModuleModel, lanes: int) -> int:
    """Of a pass through encoder and decoder and back."""
    values = of_lanes(model, lanes, torch.float32)
    trained = [value for value in values.values() if value.requires_grad]
    x = torch.randn(lanes, 4, *SHAPE)
    model.train(True)
    assert lanes == 1 or model.unstackable is None
    with Launches() as mode:
        x_hat = model.decode(values, model.encode(values, x))
        torch.autograd.grad((x_hat - x).square().sum(), trained)
    return mode.count


@pytest.mark.parametrize(
    ("factory", "arguments", "most"), [("deep", {}, 2), ("build", {"name": "weight norm"}, 3)]
)
def test_sixteen_lanes_launch_about_as_many_kernels_as_one(
    factory: str, arguments: dict[str, str], most: int
) -> None:
    model = model_of(factory, **arguments)
    one, two, sixteen = (launches(model, lanes) for lanes in (1, 2, 16))
    assert two == sixteen <= most * one
