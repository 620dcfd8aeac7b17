"""Held-out evaluation of all lanes of a stack: the same latents for every trial."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from trainables.codebooks import Quantizer
from trainables.codebooks.technique import flatten_codes
from trainables.config import TrialConfig
from trainables.data import Dataset
from trainables.feed import Feed
from trainables.metrics import codebook_metrics
from trainables.model import from_latents, latent_shapes
from trainables.stack import Stack

# Examples encoded at a time.
_BATCH = 64


class Evaluator:
    """Evaluates stacks of one signature on one fixed part of the held-out split."""

    def __init__(self, stack: Stack, dataset: Dataset) -> None:
        """Choose the examples, by the split's seed alone, that hold the latents to count.

        Latents are counted at the finest level of a hierarchy, so that it is evaluated on the
        examples of a plain model; a coarser level then has fewer of them.
        """
        config: TrialConfig = stack.trials[0]
        self.stack = stack
        shapes = latent_shapes(stack.model, dataset.example_shape)
        self.per_example = [math.prod(shape) for shape in shapes]
        finest = max(self.per_example)
        wanted = math.ceil(config.evaluation.latents / finest)
        available = len(dataset.heldout)
        order = np.random.default_rng(config.data.split_seed).permutation(available)
        self.first = dataset.heldout.starts[np.sort(order[:wanted])]
        total = min(config.evaluation.latents, len(self.first) * finest)
        self.latents = [math.ceil(total * each / finest) for each in self.per_example]
        self.frames = dataset.clip_frames or 1
        self.feed = Feed(dataset.heldout, dataset.clip_frames, stack.device, stack.dtype)
        self.warning = (
            f"the held-out split has {available * finest} latents, "
            f"{config.evaluation.latents} were asked for: large perplexities come out low"
            if available < wanted
            else None
        )

    @torch.no_grad()
    def evaluate(self) -> tuple[list[dict[str, float]], list[np.ndarray]]:
        """Metrics of each lane, and the counts [L, K] of each stream behind them.

        Waits for the device. recon_loss is the mean squared error on normalised inputs;
        recon_loss_unquantized is the same without a quantizer, recon_loss_shuffled with the codes
        of other positions.
        """
        stack = self.stack
        stack.model.train(False)
        lanes = len(stack.trials)
        totals = {
            name: torch.zeros(lanes, device=stack.device, dtype=torch.float64)
            for name in ("recon_loss", "recon_loss_unquantized", "recon_loss_shuffled")
        }
        counts = [
            torch.zeros(lanes * q.streams * q.size, device=stack.device, dtype=torch.float64)
            for q in stack.quantizers
        ]
        left, elements = list(self.latents), 0
        places = self.feed.places(self.first)
        for start in range(0, len(self.first), _BATCH):
            one = self.feed.batch(places[start : start + _BATCH])
            x = one.unsqueeze(0).expand(lanes, *one.shape)
            elements += one.numel()
            codes: list[Tensor] = []
            through = _Lookup(codes)
            z_q = stack.encode(x, through)
            for place, quantizer in enumerate(stack.quantizers):
                counted = codes[place][..., : left[place]]
                left[place] -= counted.shape[-1]
                flat = flatten_codes(counted.flatten(0, 1), quantizer.size)
                counts[place].index_add_(0, flat, torch.ones_like(flat, dtype=torch.float64))
            shuffled = [
                from_latents(q.embed(_shuffled(c, start)), z)
                for q, c, z in zip(stack.quantizers, codes, z_q, strict=True)
            ]
            floor = stack.encode(x, lambda quantizer, z: quantizer.unquantized(z))
            for name, latents in zip(totals, (z_q, floor, shuffled), strict=True):
                error = (stack.decode(latents) - x).double().square()
                totals[name] += error.flatten(1).sum(1)
        return self._metrics(counts, {k: (v / elements).tolist() for k, v in totals.items()})

    def _metrics(
        self, counts: list[Tensor], losses: dict[str, list[float]]
    ) -> tuple[list[dict[str, float]], list[np.ndarray]]:
        histograms: list[np.ndarray] = []
        in_use: list[list[int]] = []
        rates: list[float] = []
        for quantizer, flat, latents in zip(
            self.stack.quantizers, counts, self.per_example, strict=True
        ):
            shape = (len(self.stack.trials), quantizer.streams, quantizer.size)
            histograms += list(flat.view(shape).cpu().numpy().swapaxes(0, 1))
            in_use += [codes.tolist() for codes in quantizer.in_use]
            rates += [latents / self.frames] * quantizer.streams
        metrics = [
            codebook_metrics(
                [histogram[lane] for histogram in histograms], [n[lane] for n in in_use], rates
            )
            | {name: values[lane] for name, values in losses.items()}
            for lane in range(len(self.stack.trials))
        ]
        return metrics, histograms


class _Lookup:
    """Quantizes with frozen codebooks, and keeps each level's codes [L, S, N]."""

    def __init__(self, codes: list[Tensor]) -> None:
        self.codes = codes

    def __call__(self, quantizer: Quantizer, z: Tensor) -> Tensor:
        self.codes.append(quantizer.look_up(z))
        return quantizer.embed(self.codes[-1])


def _shuffled(codes: Tensor, seed: int) -> Tensor:
    """Codes [..., N] at other positions: the same permutation for every trial."""
    order = torch.randperm(codes.shape[-1], generator=torch.Generator().manual_seed(seed))
    return codes[..., order.to(codes.device)]
