"""Codebooks without a model, and latents of known structure."""

from __future__ import annotations

from typing import Any

import torch

from trainables.codebooks import Clock, Codebook, Step
from trainables.config import TrialConfig

CPU = torch.device("cpu")


def make_codebook(
    size: int, dim: int, dtype: torch.dtype = torch.float64, samples: int = 1000, **blocks: Any
) -> Codebook:
    config = TrialConfig.from_dict(
        {
            "codebook": {"size": size, "dim": dim, **blocks},
            "training": {"samples": samples},
        }
    )
    seeds = torch.tensor([config.seed])
    return Codebook([config.codebook], [samples], seeds, dim, CPU, dtype)


def clock(before: int, after: int, step: int = 1, seed: int = 0) -> Clock:
    return Clock(*(torch.tensor([n]) for n in (before, after, step, seed)))


def step_on(book: Codebook, z: torch.Tensor, before: int, batch: int = 1, step: int = 1) -> Step:
    """One step without an optimiser; z is [N, d]."""
    quantized = book.assign(z.unsqueeze(0), clock(before, before + batch, step))
    book.after_step(quantized.step, [before], [before + batch])
    return quantized.step


def modes(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Well-separated centres."""
    generator = torch.Generator().manual_seed(seed)
    return 10 * torch.randn(count, dim, generator=generator, dtype=torch.float64)


def mixture(centres: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randint(len(centres), (count,), generator=generator)
    noise = torch.randn(count, centres.shape[1], generator=generator, dtype=centres.dtype)
    return centres[pick] + 0.01 * noise
