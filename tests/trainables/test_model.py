"""Our convolutions against torch.nn, lanes against single models, and a user's own modules."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.trainables.conftest import make_config, make_dataset
from trainables.config import TrialConfig
from trainables.config_model import ConvModel, FactoryModel
from trainables.convolutions import ConvolutionModel
from trainables.errors import InputError
from trainables.evaluation import Evaluator
from trainables.feed import Feed
from trainables.model import from_latents, latent_shapes, to_latents
from trainables.model_kinds import build_model
from trainables.module_model import ModuleModel
from trainables.stack import Stack

CPU = torch.device("cpu")


def weights(model: ConvolutionModel | ModuleModel, *seeds: int) -> dict[str, Tensor]:
    """Parameters and buffers in float64, one lane a seed."""
    lanes = [model.initial(seed) | model.buffers() for seed in seeds]
    stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
    return {k: v.double() if v.is_floating_point() else v for k, v in stacked.items()}


# --- shapes --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=2),
    strides=st.lists(st.integers(1, 5), max_size=3),
    channels=st.integers(1, 3),
    depth=st.integers(0, 2),
    kernel=st.sampled_from([1, 3, 5, 9]),
    lanes=st.integers(1, 3),
)
def test_any_size_and_strides_go_down_by_ceilings_and_back_up(
    sizes: list[int], strides: list[int], channels: int, depth: int, kernel: int, lanes: int
) -> None:
    config = ConvModel(width=3, depth=depth, kernel=kernel, strides=strides)
    model = build_model(config, (channels, *sizes), 4)
    assert isinstance(model, ConvolutionModel)
    values = weights(model, *range(lanes))
    x = torch.randn(lanes, 2, channels, *sizes, dtype=torch.float64)
    [z] = model.encode(values, x)
    expected = sizes
    for stride in strides:
        expected = [math.ceil(n / stride) for n in expected]
    assert z.shape == (lanes, 2, 4, *expected)
    assert latent_shapes(model, (channels, *sizes)) == [tuple(expected)]
    assert model.decode(values, [z]).shape == x.shape
    assert {name: value.shape[1:] for name, value in values.items()} == model.shapes


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=2), lanes=st.integers(1, 3))
def test_latents_run_over_examples_then_positions_and_come_back(
    sizes: list[int], lanes: int
) -> None:
    z = torch.randn(lanes, 3, 4, *sizes)
    latents = to_latents(z)
    expected = [
        [z[(lane, example, slice(None), *place)] for example in range(3) for place in places(sizes)]
        for lane in range(lanes)
    ]
    assert torch.equal(latents, torch.stack([torch.stack(lane) for lane in expected]))
    assert torch.equal(from_latents(latents, z), z)


def places(sizes: list[int]) -> list[tuple[int, ...]]:
    if len(sizes) == 1:
        return [(i,) for i in range(sizes[0])]
    return [(i, j) for i in range(sizes[0]) for j in range(sizes[1])]


# --- against other implementations ---------------------------------------------------------------


class Residual(nn.Module):
    """ReLU, 3-wide convolution, ReLU, 1-wide convolution, around which the input goes."""

    def __init__(self, conv: Any, width: int, kernel: int) -> None:
        super().__init__()
        self.a = conv(width, width, kernel, padding=kernel // 2)
        self.b = conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(F.relu(x))))


class Crop(nn.Module):
    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        return x[(..., *(slice(size) for size in self.sizes))]


def in_torch_nn(config: ConvModel, shape: tuple[int, ...], dim: int) -> dict[str, nn.Module]:
    """The encoder and decoder that the config's docstring tells of, of torch's own layers.

    For two stages: the sizes in the middle are written out by hand.
    """
    conv = nn.Conv1d if len(shape) == 2 else nn.Conv2d
    width, kernel, (first, second) = config.width, config.kernel, config.strides
    middle = tuple(-(-n // first) for n in shape[1:])

    def residuals() -> list[nn.Module]:
        return [Residual(conv, width, kernel) for _ in range(config.depth)]

    encoder = nn.Sequential(
        conv(shape[0], width, kernel, padding=kernel // 2),
        nn.ReLU(),
        conv(width, width, 2 * first + 1, stride=first, padding=first),
        nn.ReLU(),
        conv(width, width, 2 * second + 1, stride=second, padding=second),
        *residuals(),
        nn.ReLU(),
        conv(width, dim, 1),
    )
    decoder = nn.Sequential(
        conv(dim, width, kernel, padding=kernel // 2),
        *residuals(),
        nn.Upsample(scale_factor=second),
        Crop(middle),
        nn.ReLU(),
        conv(width, width, 3, padding=1),
        nn.Upsample(scale_factor=first),
        Crop(shape[1:]),
        nn.ReLU(),
        conv(width, width, 3, padding=1),
        nn.ReLU(),
        conv(width, shape[0], kernel, padding=kernel // 2),
    )
    return {"encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("shape", [(5, 13), (2, 7, 10)])
def test_the_model_is_the_one_that_torch_nn_builds(shape: tuple[int, ...]) -> None:
    config = ConvModel(width=6, depth=2, kernel=5, strides=(3, 2))
    model = ConvolutionModel(config, shape, 4)
    values = weights(model, 1)
    theirs = in_torch_nn(config, shape, 4)
    for side, module in theirs.items():
        # Both list their layers from input to output, a block's two after each other.
        mine = [v[0] for name, v in values.items() if name.startswith(side)]
        names = [name for name, _ in module.named_parameters()]
        module.double().load_state_dict(dict(zip(names, mine, strict=True)))
    x = torch.randn(3, *shape, dtype=torch.float64)
    [z] = model.encode(values, x.unsqueeze(0))
    torch.testing.assert_close(z[0], theirs["encoder"](x))
    torch.testing.assert_close(model.decode(values, [z])[0], theirs["decoder"](z[0]))


@pytest.mark.parametrize("shape", [(3, 11), (2, 5, 6)])
def test_lanes_give_what_single_models_give(shape: tuple[int, ...]) -> None:
    model = ConvolutionModel(ConvModel(width=5, depth=1, strides=(2,)), shape, 4)
    together = weights(model, 1, 2, 3)
    x = torch.randn(3, 4, *shape, dtype=torch.float64)
    [z] = model.encode(together, x)
    x_hat = model.decode(together, [z])
    for lane, seed in enumerate((1, 2, 3)):
        alone = weights(model, seed)
        mine = slice(lane, lane + 1)
        torch.testing.assert_close(z[mine], model.encode(alone, x[mine])[0])
        torch.testing.assert_close(x_hat[mine], model.decode(alone, [z[mine]]))


def test_fresh_parameters_come_from_the_seed_alone_and_fill_torchs_range() -> None:
    model = ConvolutionModel(ConvModel(width=64, depth=1), (32, 8), 16)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = model.initial(3), model.initial(3), model.initial(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    for name, fan_in in (("encoder.in", 32 * 3), ("encoder.block.0.b", 64), ("decoder.in", 16 * 3)):
        bound = 1 / math.sqrt(fan_in)
        for part in ("weight", "bias"):
            value = first[f"{name}.{part}"].abs().max().item()
            assert 0.9 * bound < value <= bound


# --- a user's own modules ------------------------------------------------------------------------


class Normed(nn.Module):
    """A convolution and a BatchNorm."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, dim, 3, padding=1)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x))


class Partial(nn.Module):
    """A frozen layer, one that trains and one that is never used."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.frozen = nn.Conv1d(channels, dim, 1).requires_grad_(False)
        self.trained = nn.Conv1d(dim, dim, 1)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.trained(self.frozen(x))


class Raising(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.layer = error, nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


class Pair(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.layer = nn.Conv1d(channels, dim, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), self.layer(x)


def decoder_of(example_shape: tuple[int, ...], dim: int) -> nn.Module:
    return nn.Conv1d(dim, example_shape[0], 3, padding=1)


def normed(example_shape: tuple[int, ...], dim: int) -> Any:
    return Normed(example_shape[0], dim), decoder_of(example_shape, dim)


def partial(example_shape: tuple[int, ...], dim: int) -> Any:
    return Partial(example_shape[0], dim), decoder_of(example_shape, dim)


def convolutions(
    example_shape: tuple[int, ...], dim: int, strides: list[int] | None = None
) -> tuple[nn.Module, nn.Module]:
    """The model of `in_torch_nn` as a user's own."""
    config = ConvModel(width=8, depth=1, strides=strides or [2, 2])
    sides = in_torch_nn(config, example_shape, dim)
    return sides["encoder"], sides["decoder"]


def make(example_shape: tuple[int, ...], dim: int, fault: str) -> Any:
    """What a user may get wrong."""
    channels = example_shape[0]
    encoder, decoder = nn.Conv1d(channels, dim, 1), nn.Conv1d(dim, channels, 1)
    return {
        "one module": encoder,
        "a function": (encoder, lambda z: z),
        "three modules": (encoder, decoder, decoder),
        "another dimension": (nn.Conv1d(channels, dim + 1, 1), decoder),
        "fewer axes": (nn.Sequential(encoder, nn.Flatten()), decoder),
        "another length": (encoder, nn.Conv1d(dim, channels, 3)),
        "channels of its own": (nn.Conv1d(channels + 1, dim, 1), decoder),
        "a pair of tensors": (Pair(channels, dim), decoder),
        "a ValueError": (Raising(ValueError("no\nsuch thing")), decoder),
        "a KeyError": (encoder, Raising(KeyError("missing"))),
        "no parameters": (nn.Identity(), nn.Identity()),
    }[fault]


def factory_config(name: str, seed: int = 0, **arguments: Any) -> TrialConfig:
    values = make_config({"update": {"kind": "ema"}}).to_dict() | {"seed": seed}
    block = {"kind": "factory", "factory": f"{__name__}:{name}", "arguments": arguments}
    return TrialConfig.from_dict(values | {"model": block})


def test_a_users_modules_give_what_our_own_give() -> None:
    config = ConvModel(width=8, depth=1, strides=(2, 3))
    ours = ConvolutionModel(config, (5, 13), 4)
    block = factory_config("convolutions", strides=[2, 3]).model
    assert isinstance(block, FactoryModel)
    theirs = ModuleModel(block, (5, 13), 4)
    mine = weights(ours, 1, 2)
    sides = [[n for n in mine if n.startswith(s)] for s in ("encoder", "decoder")]
    order = [name for side in sides for name in side]
    named = dict(zip(theirs.initial(0), (mine[name] for name in order), strict=True))
    theirs.encoder.double()
    theirs.decoder.double()
    x = torch.randn(2, 3, 5, 13, dtype=torch.float64)
    [z] = ours.encode(mine, x)
    torch.testing.assert_close(theirs.encode(named, x)[0], z)
    torch.testing.assert_close(theirs.decode(named, [z]), ours.decode(mine, [z]))


def test_a_factorys_parameters_come_from_the_lanes_seed() -> None:
    block = factory_config("normed").model
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = ModuleModel(block, (6, 8), 4)
    first, again, other = model.initial(3), model.initial(3), model.initial(4)
    assert torch.equal(torch.get_rng_state(), before)
    name = "encoder.convolution.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_a_users_modules_train_and_batch_norm_is_a_lanes_own() -> None:
    dataset = make_dataset()
    trials = []
    for seed in (1, 2):
        # In float64: the bias before the norm follows rounding, which Adam enlarges.
        values = factory_config("normed", seed).to_dict()
        values["training"]["precision"] = "float64"
        trials.append(TrialConfig.from_dict(values))
    together = Stack(trials, dataset, CPU)
    together.advance(20)
    for lane, trial in enumerate(trials):
        alone = Stack([trial], dataset, CPU)
        start = alone.lane_state(0)
        alone.advance(20)
        state = alone.lane_state(0)
        for name, value in together.lane_state(lane).items():
            torch.testing.assert_close(value, state[name], rtol=1e-8, atol=1e-8, msg=name)
        changed = {name for name in state if not torch.equal(state[name], start[name])}
        assert {name for name in state if name.startswith("model.")} <= changed
        assert state["model.encoder.norm.num_batches_tracked"] == 20
    first, second = together.buffers["encoder.norm.running_mean"]
    assert not torch.allclose(first, second)


def test_training_normalises_by_the_batch_and_evaluation_by_running_statistics() -> None:
    dataset, trial = make_dataset(), factory_config("normed")
    stack = Stack([trial], dataset, CPU)
    stack.advance(10)
    evaluator = Evaluator(stack, dataset)
    evaluator.evaluate()
    encoder, _ = normed((6, 8), 4)
    state = stack.lane_state(0)
    prefix = "model.encoder."
    encoder.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    feed = Feed(dataset.heldout, 8, CPU, torch.float32)
    x = feed.batch(feed.places(dataset.heldout.starts))
    with torch.no_grad():
        running = encoder.eval()(x)
        torch.testing.assert_close(stack.encode(x.unsqueeze(0), lambda _, z: z)[0][0], running)
        by_batch = encoder.train()(x)
        stack.model.train(True)
        torch.testing.assert_close(stack.encode(x.unsqueeze(0), lambda _, z: z)[0][0], by_batch)
    assert not torch.allclose(running, by_batch, rtol=1e-2)
    by_hand = F.batch_norm(
        encoder.convolution(x),
        state[f"{prefix}norm.running_mean"],
        state[f"{prefix}norm.running_var"],
        state[f"{prefix}norm.weight"],
        state[f"{prefix}norm.bias"],
    )
    torch.testing.assert_close(running, by_hand.detach())


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_frozen_parameters_stay_and_idle_ones_do_no_harm(update: str) -> None:
    values = factory_config("partial").to_dict()
    values["codebook"]["update"] = {"kind": update}
    stack = Stack([TrialConfig.from_dict(values)], make_dataset(), CPU)
    before = stack.lane_state(0)
    stack.advance(5)
    after = stack.lane_state(0)
    for name in before:
        if name.startswith("model."):
            layer = name.split(".")[2]
            assert torch.equal(before[name], after[name]) == (layer in ("frozen", "idle")), name
    assert stack.finite.all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("one module", "returned Conv1d, allowed: (encoder, decoder), two torch.nn.Module"),
        ("a function", "returned tuple, allowed: (encoder, decoder), two torch.nn.Module"),
        ("three modules", "returned tuple, allowed: (encoder, decoder), two torch.nn.Module"),
        ("another dimension", "encoder gives (2, 5, 8) for (2, 6, 8), allowed: (2, 4, ...) with"),
        ("fewer axes", "encoder gives (2, 32) for (2, 6, 8), allowed: (2, 4, ...) with as many"),
        ("another length", "decoder gives (2, 6, 6) for (2, 4, 8), allowed: (2, 6, 8)"),
        ("channels of its own", "fails on a batch (2, 6, 8): RuntimeError: "),
        ("a pair of tensors", "fails on a batch (2, 6, 8): TypeError: "),
        ("a ValueError", "fails on a batch (2, 6, 8): ValueError: no such thing (test_model.py, "),
        ("a KeyError", "fails on a batch (2, 6, 8): KeyError: 'missing' (test_model.py, line"),
        ("no parameters", "found no parameters to train in either module"),
        ("nothing known", "raised KeyError: 'nothing known'"),
    ],
)
def test_modules_that_will_not_do_are_one_line(fault: str, message: str) -> None:
    config = factory_config("make", fault=fault)
    with pytest.raises(InputError) as caught:
        build_model(config.model, (6, 8), 4)
    assert str(caught.value).startswith(f"model.factory {__name__}:make: {message}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:make", "no module 'no_such_module', neither installed nor in "),
        (f"{__name__}:nothing", f"module {__name__!r} has no 'nothing'"),
        (f"{__name__}:CPU", "found device, allowed: a function"),
    ],
)
def test_a_factory_that_is_not_there_is_one_line(path: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_model(FactoryModel(factory=path), (6, 8), 4)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_arguments_that_the_factory_does_not_take_are_one_line() -> None:
    config = factory_config("normed", layers=3)
    with pytest.raises(InputError, match="unexpected keyword argument 'layers'") as caught:
        build_model(config.model, (6, 8), 4)
    assert str(caught.value).isprintable()
