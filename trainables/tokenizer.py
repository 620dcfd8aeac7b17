"""A trained trial for use: examples to codes and back.

tokenizer = Tokenizer.load("01-t0003.safetensors")
codes = tokenizer.encode(x)
x_hat = tokenizer.decode(codes, x.shape[1:])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.checkpoint import read_tensors
from trainables.codebooks import VectorQuantizer
from trainables.config import TrialConfig
from trainables.config_model import HierarchicalModel
from trainables.errors import InputError
from trainables.model import Model
from trainables.model_kinds import build_model


class Tokenizer(nn.Module):
    """Encoder, trained codebooks and decoder of a trial, in float32 and for evaluation.

    Examples are normalised as the trial's data: (x - mean) / std, with the mean and std of the
    export's provenance. They may be of another length than in training.

    Attributes:
        config: the trial's.
        quantizers: one `VectorQuantizer` a level, channel-first, the coarsest level first.
    """

    def __init__(self, config: TrialConfig, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that `vqtune export` and `vqtune train` write.

        Raises:
            InputError: weights of another config.
        """
        super().__init__()
        self.config = config
        levels = ("top", "bottom") if isinstance(config.model, HierarchicalModel) else ("",)
        self.quantizers = nn.ModuleList()
        for level in levels:
            quantizer = VectorQuantizer.from_config(
                config.codebook,
                channel_first=True,
                samples=config.training.samples,
                seed=config.seed,
            )
            quantizer.load_exported(weights, level)
            self.quantizers.append(quantizer)
        self._names: dict[str, str] = {}
        for name, value in weights.items():
            if name.partition(".")[0] != "codebook":
                self._names[name] = name.replace(".", "_")  # dots are refused
                own = value.float() if value.is_floating_point() else value
                self.register_buffer(self._names[name], own)
        self._models: dict[tuple[int, ...], Model] = {}
        self.eval()

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read the safetensors of an export or a training, which tell their config themselves.

        Raises:
            InputError: a file that is missing or something else.
        """
        weights, header = read_tensors(Path(path))
        if "trial" not in header:
            raise InputError("tells no config; allowed: exported weights", str(path))
        return cls(TrialConfig.from_dict(header["trial"], str(path)), weights)

    @torch.no_grad()
    def encode(self, x: Tensor) -> list[Tensor]:
        """Indices of examples [B, C, T] or [B, C, H, W], level by level.

        Each is int64 [B, positions], or [B, positions, S] of several streams.
        """
        model, parameters = self._model_of(tuple(x.shape[1:])), self._weights()
        features = model.encode(parameters, x.unsqueeze(0))
        codes: list[Tensor] = []
        z_q: list[Tensor] = []
        for quantizer in self._quantizers():
            codes.append(quantizer.encode(model.latents(parameters, features, z_q)[0]))
            z_q.append(quantizer.decode(codes[-1]).unsqueeze(0))
        return codes

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """Examples [B, *shape] of indices as `encode` gives them.

        Args:
            codes: level by level.
            shape: of one example, (C, T) or (C, H, W).
        """
        model = self._model_of(tuple(shape))
        z_q = [
            quantizer.decode(one).unsqueeze(0)
            for quantizer, one in zip(self._quantizers(), codes, strict=True)
        ]
        return model.decode(self._weights(), z_q)[0]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of examples, in their shape."""
        return self.decode(self.encode(x), x.shape[1:])

    def _quantizers(self) -> list[VectorQuantizer]:
        return [one for one in self.quantizers if isinstance(one, VectorQuantizer)]

    def _weights(self) -> dict[str, Tensor]:
        return {name: getattr(self, own).unsqueeze(0) for name, own in self._names.items()}

    def _model_of(self, shape: tuple[int, ...]) -> Model:
        """The model for examples of this shape; it holds no weights."""
        if shape not in self._models:
            model = build_model(self.config.model, shape, self.config.codebook.dim)
            model.train(False)
            self._models = {shape: model}
        return self._models[shape]
