"""A trial's codebook, here and as the printed program for vector-quantize-pytorch builds it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.codebooks import Clock, Quantized, Quantizer
from trainables.config import TrialConfig
from vqtune.peer_export import peer_arguments
from vqtune.peer_python import as_python

SIZE, DIM = 64, 16


def make_config(codebook: dict[str, Any] | None = None, **blocks: Any) -> TrialConfig:
    values = {"size": SIZE, "dim": DIM, **(codebook or {})}
    return TrialConfig.from_dict({"codebook": values, **blocks})


class Peer:
    """The quantizer of the printed program, which is run as it is printed."""

    def __init__(self, config: TrialConfig) -> None:
        self.arguments = peer_arguments(config)
        self.names: dict[str, Any] = {}
        exec(as_python(self.arguments, "a trial"), self.names)
        # The program has made a step already; this one has not.
        made = self.names[self.arguments.class_name](**self.arguments.arguments)
        self.quantizer = self.names["quantizer"] = made

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z_q, codes and loss of latents [batch, positions, dim], by the program's last lines."""
        self.names["latents"] = latents
        exec("\n".join(self.arguments.use), self.names)
        z_q, codes, loss = (self.names[name] for name in ("z_q", "codes", "loss"))
        return z_q, codes, torch.as_tensor(loss)


class Ours:
    """A lone quantizer of vqtune; what it trains has gradients, and nothing applies them."""

    def __init__(self, config: TrialConfig) -> None:
        zero = torch.zeros(1, dtype=torch.int64)
        self.quantizer = Quantizer([config.codebook], [10_000], zero, zero.device, torch.float32)
        trained = self.quantizer.trained | self.quantizer.trained_codes
        self.trained = {name: value.clone().requires_grad_() for name, value in trained.items()}
        self.quantizer.adopt(self.trained)
        self.steps = 0

    def __call__(self, latents: Tensor) -> Quantized:
        """One step without an optimiser on latents [batch, positions, dim]."""
        samples = [n * 16 for n in (self.steps, self.steps + 1)]
        self.steps += 1
        before, after, step, seed = (torch.tensor([n]) for n in (*samples, self.steps, 0))
        z = latents.flatten(0, 1).unsqueeze(0)
        quantized = self.quantizer.quantize(z, Clock(before, after, step, seed))
        self.quantizer.after_step(quantized, samples[:1], samples[1:])
        return quantized
