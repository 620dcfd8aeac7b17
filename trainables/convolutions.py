"""The default VQ-VAE's encoder and decoder; all lanes run as groups of one convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config_model import Convolutions
from trainables.model import Parameters


class ConvolutionModel:
    """The default VQ-VAE: strided convolutions and residual blocks (van den Oord et al. 2017)."""

    levels = 1
    unstackable: str | None = None
    decoder_inputs = 1  # maps of latents that the decoder sees side by side

    def __init__(self, config: Convolutions, example_shape: tuple[int, ...], dim: int) -> None:
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
        self._layer("decoder.in", self.decoder_inputs * dim, width, config.kernel)
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

    def encode(self, parameters: Parameters, x: Tensor) -> list[Tensor]:
        """Inputs [L, B, C, ...] to latents [L, B, d, ...]."""
        lanes = x.shape[0]
        h = self._encoded(parameters, x)
        return [unpack(self._convolve(parameters, "encoder.out", F.relu(h), lanes), lanes)]

    def latents(
        self, parameters: Parameters, features: Sequence[Tensor], z_q: Sequence[Tensor]
    ) -> Tensor:
        """The only features there are."""
        return features[0]

    def decode(self, parameters: Parameters, z_q: Sequence[Tensor]) -> Tensor:
        """Latents [L, B, d, ...] to reconstructions [L, B, C, ...]."""
        return self._decoded(parameters, pack(z_q[0]), z_q[0].shape[0])

    def _encoded(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Inputs to packed features [B, L * width, ...]."""
        lanes = x.shape[0]
        h = self._convolve(parameters, "encoder.in", pack(x), lanes)
        for i, stride in enumerate(self.config.strides):
            h = self._convolve(parameters, f"encoder.down.{i}", F.relu(h), lanes, stride)
        return self._residual(parameters, "encoder", h, lanes)

    def _decoded(self, parameters: Parameters, z: Tensor, lanes: int) -> Tensor:
        """Packed latents [B, L * d, ...] to reconstructions [L, B, C, ...]."""
        h = self._convolve(parameters, "decoder.in", z, lanes)
        h = self._residual(parameters, "decoder", h, lanes)
        for i, stride in enumerate(reversed(self.config.strides)):
            h = enlarge(h, stride, self._sizes[-2 - i])
            h = self._convolve(parameters, f"decoder.up.{i}", F.relu(h), lanes)
        return unpack(self._convolve(parameters, "decoder.out", F.relu(h), lanes), lanes)

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


def pack(x: Tensor) -> Tensor:
    """[L, B, C, ...] to [B, L * C, ...]: lanes become groups."""
    return x[0] if x.shape[0] == 1 else x.transpose(0, 1).flatten(1, 2)


def unpack(h: Tensor, lanes: int) -> Tensor:
    """[B, L * C, ...] to [L, B, C, ...]."""
    return h.unsqueeze(0) if lanes == 1 else h.unflatten(1, (lanes, -1)).transpose(0, 1)


def enlarge(h: Tensor, stride: int, sizes: Sequence[int]) -> Tensor:
    """Repeat each position `stride` times, and cut to `sizes` what a ceiling has added."""
    h = F.interpolate(h, scale_factor=float(stride), mode="nearest")
    for axis, size in enumerate(sizes):
        h = h.narrow(2 + axis, 0, size)
    return h
