"""Encoder and decoder for a stack of lanes: our own convolutions, or a user's modules.

A model is stateless: parameters and buffers come in as {name: [L, ...]}, so that one optimiser
buffer holds all lanes. Our convolutions run all lanes as groups of one convolution; a user's
modules run lane by lane through torch.func.functional_call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config_model import ConvModel, FactoryModel, ModelConfig
from trainables.errors import InputError
from trainables.factory import load_factory, told

Parameters = Mapping[str, Tensor]


class Model(Protocol):
    """Encoder and decoder of a stack."""

    def initial(self, seed: int) -> dict[str, Tensor]:
        """Fresh parameters of one lane, without the lane axis, on the CPU in float32."""
        ...

    def buffers(self) -> dict[str, Tensor]:
        """Fresh buffers of one lane (running statistics), changed in place by training."""
        ...

    def train(self, mode: bool) -> None:
        """Switch between training and evaluation."""
        ...

    def draw(self, seeds: Sequence[int]) -> None:
        """Take each lane's seed for whatever the modules themselves draw in the next step."""
        ...

    def encode(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Inputs [L, B, C, ...] to latents [L, B, d, ...]."""
        ...

    def decode(self, parameters: Parameters, z: Tensor) -> Tensor:
        """Latents [L, B, d, ...] to reconstructions [L, B, C, ...]."""
        ...


def build_model(config: ModelConfig, example_shape: tuple[int, ...], dim: int) -> Model:
    """The model for examples (C, T) or (C, H, W) and codes of dimension `dim`.

    Raises:
        InputError: a factory that cannot be found, fails, or gives modules of the wrong shapes.
    """
    if isinstance(config, FactoryModel):
        return ModuleModel(config, example_shape, dim)
    return ConvolutionModel(config, example_shape, dim)


def latent_shape(model: Model, example_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of an example's latents after d: (T',) or (H', W')."""
    with torch.no_grad():
        z = model.encode(_one_lane(model), torch.zeros(1, 2, *example_shape))
    return tuple(z.shape[3:])


class ConvolutionModel:
    """The default VQ-VAE: strided convolutions and residual blocks (van den Oord et al. 2017)."""

    def __init__(self, config: ConvModel, example_shape: tuple[int, ...], dim: int) -> None:
        """Lay out the parameters: name to shape."""
        self.config = config
        self.example_shape = example_shape
        self.axes = len(example_shape) - 1
        channels, width = example_shape[0], config.width
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._layer("encoder.in", channels, width, config.kernel)
        for i, stride in enumerate(config.strides):
            self._layer(f"encoder.down.{i}", width, width, 2 * stride + 1)
        self._residuals("encoder")
        self._layer("encoder.out", width, dim, 1)
        self._layer("decoder.in", dim, width, config.kernel)
        self._residuals("decoder")
        for i, _ in enumerate(config.strides):
            self._layer(f"decoder.up.{i}", width, width, 3)
        self._layer("decoder.out", width, channels, config.kernel)
        # Sizes on the way down, so that the decoder can crop what the ceiling added.
        self._sizes = [example_shape[1:]]
        for stride in config.strides:
            self._sizes.append(tuple(math.ceil(n / stride) for n in self._sizes[-1]))

    def initial(self, seed: int) -> dict[str, Tensor]:
        """Uniform in +-1/sqrt(fan in), torch's default for convolutions."""
        generator = torch.Generator().manual_seed(seed)
        values = {}
        for name, shape in self.shapes.items():
            weight_shape = (
                self.shapes[name.removesuffix(".bias") + ".weight"]
                if (name.endswith(".bias"))
                else shape
            )
            bound = 1 / math.sqrt(math.prod(weight_shape[1:]))
            values[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
        return values

    def buffers(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def train(self, mode: bool) -> None:
        """No difference."""

    def draw(self, seeds: Sequence[int]) -> None:
        """Nothing is drawn."""

    def encode(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Inputs [L, B, C, ...] to latents [L, B, d, ...]."""
        lanes = x.shape[0]
        h = self._convolve(parameters, "encoder.in", _pack(x), lanes)
        for i, stride in enumerate(self.config.strides):
            h = self._convolve(parameters, f"encoder.down.{i}", F.relu(h), lanes, stride)
        h = self._residual(parameters, "encoder", h, lanes)
        return _unpack(self._convolve(parameters, "encoder.out", F.relu(h), lanes), lanes)

    def decode(self, parameters: Parameters, z: Tensor) -> Tensor:
        """Latents [L, B, d, ...] to reconstructions [L, B, C, ...]."""
        lanes = z.shape[0]
        h = self._convolve(parameters, "decoder.in", _pack(z), lanes)
        h = self._residual(parameters, "decoder", h, lanes)
        for i, stride in enumerate(reversed(self.config.strides)):
            h = F.interpolate(h, scale_factor=float(stride), mode="nearest")
            for axis, size in enumerate(self._sizes[-2 - i]):
                h = h.narrow(2 + axis, 0, size)
            h = self._convolve(parameters, f"decoder.up.{i}", F.relu(h), lanes)
        return _unpack(self._convolve(parameters, "decoder.out", F.relu(h), lanes), lanes)

    def _layer(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        self.shapes[f"{name}.weight"] = (outputs, inputs, *[kernel] * self.axes)
        self.shapes[f"{name}.bias"] = (outputs,)

    def _residuals(self, side: str) -> None:
        width = self.config.width
        for i in range(self.config.depth):
            self._layer(f"{side}.block.{i}.a", width, width, self.config.kernel)
            self._layer(f"{side}.block.{i}.b", width, width, 1)

    def _residual(self, parameters: Parameters, side: str, h: Tensor, lanes: int) -> Tensor:
        for i in range(self.config.depth):
            inner = self._convolve(parameters, f"{side}.block.{i}.a", F.relu(h), lanes)
            h = h + self._convolve(parameters, f"{side}.block.{i}.b", F.relu(inner), lanes)
        return h

    def _convolve(
        self, parameters: Parameters, name: str, h: Tensor, lanes: int, stride: int = 1
    ) -> Tensor:
        weight = parameters[f"{name}.weight"].flatten(0, 1)
        bias = parameters[f"{name}.bias"].flatten(0, 1)
        padding = weight.shape[-1] // 2
        convolve = F.conv1d if self.axes == 1 else F.conv2d
        return convolve(h, weight, bias, stride=stride, padding=padding, groups=lanes)


class ModuleModel:
    """A user's encoder and decoder, lane by lane."""

    def __init__(self, config: FactoryModel, example_shape: tuple[int, ...], dim: int) -> None:
        """Build the modules once and check their shapes."""
        self.config, self.example_shape, self.dim = config, example_shape, dim
        self._where = f"model.factory {config.factory}"
        self._build = load_factory(config.factory)
        self._seeds: list[int] = []
        self.encoder, self.decoder = self._modules(0)
        self._check()

    def initial(self, seed: int) -> dict[str, Tensor]:
        """Parameters of modules built under `seed`, without frozen ones."""
        encoder, decoder = self._modules(seed)
        sides = {"encoder": encoder, "decoder": decoder}
        return {
            f"{side}.{name}": value.detach().clone()
            for side, module in sides.items()
            for name, value in module.named_parameters()
            if value.requires_grad
        }

    def buffers(self) -> dict[str, Tensor]:
        """Buffers and frozen parameters as the modules were built."""
        sides = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            f"{side}.{name}": value.detach().clone()
            for side, module in sides.items()
            for name, value in [*module.named_buffers(), *module.named_parameters()]
            if not value.requires_grad
        }

    def train(self, mode: bool) -> None:
        """Switch the modules' own mode."""
        self.encoder.train(mode)
        self.decoder.train(mode)
        self._seeds = []

    def draw(self, seeds: Sequence[int]) -> None:
        """Dropout and the like draw from torch's own generator: set it for each lane and step."""
        self._seeds = list(seeds)

    def encode(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Inputs [L, B, C, ...] to latents [L, B, d, ...]."""
        return self._run("encoder", self.encoder, parameters, x)

    def decode(self, parameters: Parameters, z: Tensor) -> Tensor:
        """Latents [L, B, d, ...] to reconstructions [L, B, C, ...]."""
        return self._run("decoder", self.decoder, parameters, z)

    def _run(self, side: str, module: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
        prefix = f"{side}."
        mine = {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}
        outputs = []
        for i in range(x.shape[0]):
            if self._seeds:
                # Not the same noise in both: they may have layers of one shape.
                torch.manual_seed(2 * self._seeds[i] + (side == "decoder"))
            lane = {k: v[i] for k, v in mine.items()}
            outputs.append(torch.func.functional_call(module, lane, (x[i],)))
        return torch.stack(outputs)

    def _modules(self, seed: int) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                pair = self._build(
                    example_shape=self.example_shape, dim=self.dim, **self.config.arguments
                )
            except Exception as error:
                raise InputError(f"raised {type(error).__name__}: {error}", self._where) from error
        match pair:
            case (nn.Module() as encoder, nn.Module() as decoder):
                return encoder, decoder
        raise InputError(
            f"returned {type(pair).__name__}, allowed: (encoder, decoder), two torch.nn.Module",
            self._where,
        )

    def _check(self) -> None:
        if not self.initial(0):
            raise InputError("found no parameters to train in either module", self._where)
        parameters = _one_lane(self)
        x = torch.zeros(1, 2, *self.example_shape)
        try:
            with torch.no_grad():
                z = self.encode(parameters, x)
                if z.dim() == x.dim() and z.shape[:3] == (1, 2, self.dim):
                    out = self.decode(parameters, z)
                    if out.shape == x.shape:
                        return
                    found = f"decoder gives {tuple(out.shape[1:])} for {tuple(z.shape[1:])}"
                    raise InputError(f"{found}, allowed: {tuple(x.shape[1:])}", self._where)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"fails on a batch {tuple(x.shape[1:])}: {told(error)}", self._where
            ) from error
        raise InputError(
            f"encoder gives {tuple(z.shape[1:])} for {tuple(x.shape[1:])}, allowed: "
            f"(2, {self.dim}, ...) with as many axes",
            self._where,
        )


def _one_lane(model: Model) -> dict[str, Tensor]:
    values = model.initial(0) | model.buffers()
    return {name: value.unsqueeze(0) for name, value in values.items()}


def to_latents(z: Tensor) -> Tensor:
    """[L, B, d, ...] to [L, N, d], N running over examples and positions."""
    return z.flatten(3).transpose(2, 3).flatten(1, 2)


def from_latents(latents: Tensor, like: Tensor) -> Tensor:
    """[L, N, d] back to the shape of `like` [L, B, d, ...]."""
    lanes, batch, dim = like.shape[:3]
    return latents.reshape(lanes, batch, -1, dim).transpose(2, 3).reshape(like.shape)


def _pack(x: Tensor) -> Tensor:
    """[L, B, C, ...] to [B, L * C, ...]: lanes become groups."""
    return x[0] if x.shape[0] == 1 else x.transpose(0, 1).flatten(1, 2)


def _unpack(h: Tensor, lanes: int) -> Tensor:
    """[B, L * C, ...] to [L, B, C, ...]."""
    return h.unsqueeze(0) if lanes == 1 else h.unflatten(1, (lanes, -1)).transpose(0, 1)
