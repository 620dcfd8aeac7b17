"""VQ-VAE-2's hierarchy: a coarse top and a fine bottom map of latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config_model import HierarchicalModel
from trainables.convolutions import ConvolutionModel, enlarge, pack, unpack
from trainables.model import Parameters


class HierarchicalConvolutions(ConvolutionModel):
    """Two levels (Razavi et al. 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2").

    Algorithm 1: h_bottom = E_bottom(x), e_top = Q(E_top(h_bottom)), e_bottom = Q(h_bottom,
    D_top(e_top)), x_hat = D(e_top, e_bottom).
    """

    levels = 2
    decoder_inputs = 2

    def __init__(self, config: HierarchicalModel, example_shape: tuple[int, ...], dim: int) -> None:
        """Lay out the top's parameters beside those of the bottom."""
        super().__init__(config, example_shape, dim)
        self.top_strides, width = config.top_strides, config.width
        for i, stride in enumerate(config.top_strides):
            self._layer(f"top.encoder.down.{i}", width, width, 2 * stride + 1)
            self._layer(f"top.decoder.up.{i}", width, width, 3)
            self._layer(f"top.upsample.{i}", dim if i == 0 else width, width, 3)
        self._residuals("top.encoder")
        self._layer("top.encoder.out", width, dim, 1)
        self._layer("top.decoder.in", dim, width, config.kernel)
        self._residuals("top.decoder")
        self._layer("top.upsample.out", width, dim, 1)
        # The bottom's projection sees its own features and what the top tells of them.
        self._layer("encoder.out", 2 * width, dim, 1)
        self._top_sizes = [self._sizes[-1]]
        for stride in config.top_strides:
            self._top_sizes.append(tuple(math.ceil(n / stride) for n in self._top_sizes[-1]))

    def encode(self, parameters: Parameters, x: Tensor) -> list[Tensor]:
        """Inputs [L, B, C, ...] to the top's latents, and the bottom's features."""
        lanes = x.shape[0]
        bottom = self._encoded(parameters, x)
        h = bottom
        for i, stride in enumerate(self.top_strides):
            h = self._convolve(parameters, f"top.encoder.down.{i}", F.relu(h), lanes, stride)
        h = self._residual(parameters, "top.encoder", h, lanes)
        top = self._convolve(parameters, "top.encoder.out", F.relu(h), lanes)
        return [unpack(top, lanes), unpack(bottom, lanes)]

    def latents(
        self, parameters: Parameters, features: Sequence[Tensor], z_q: Sequence[Tensor]
    ) -> Tensor:
        """The top's latents; then the bottom's, given the quantized top."""
        if not z_q:
            return features[0]
        lanes = z_q[0].shape[0]
        h = self._convolve(parameters, "top.decoder.in", pack(z_q[0]), lanes)
        h = self._residual(parameters, "top.decoder", h, lanes)
        for i, stride in enumerate(reversed(self.top_strides)):
            h = enlarge(h, stride, self._top_sizes[-2 - i])
            h = self._convolve(parameters, f"top.decoder.up.{i}", F.relu(h), lanes)
        both = torch.cat([features[1], unpack(h, lanes)], dim=2)
        return unpack(self._convolve(parameters, "encoder.out", F.relu(pack(both)), lanes), lanes)

    def decode(self, parameters: Parameters, z_q: Sequence[Tensor]) -> Tensor:
        """Both levels side by side, the top enlarged, to reconstructions [L, B, C, ...]."""
        top, bottom = z_q
        lanes = top.shape[0]
        h = pack(top)
        for i, stride in enumerate(reversed(self.top_strides)):
            h = enlarge(h, stride, self._top_sizes[-2 - i])
            h = F.relu(self._convolve(parameters, f"top.upsample.{i}", h, lanes))
        h = self._convolve(parameters, "top.upsample.out", h, lanes)
        both = torch.cat([unpack(h, lanes), bottom], dim=2)
        return self._decoded(parameters, pack(both), lanes)
