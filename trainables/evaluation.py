"""Held-out evaluation of all lanes of a stack: the same latents for every trial."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trainables.codebooks import Quantizer
from trainables.codebooks.technique import Look, flatten_codes
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
        tally, elements = _Tally(self), 0
        for start, x in self._batches(self.first):
            elements += x[0].numel()
            codes: list[Tensor] = []
            z_q = stack.encode(x, _Lookup(codes))
            tally.add(codes)
            shuffled = [
                from_latents(q.embed(_shuffled(c, start)), z)
                for q, c, z in zip(stack.quantizers, codes, z_q, strict=True)
            ]
            floor = stack.encode(x, lambda quantizer, z: quantizer.unquantized(z))
            for name, latents in zip(totals, (z_q, floor, shuffled), strict=True):
                error = (stack.decode(latents) - x).double().square()
                totals[name] += error.flatten(1).sum(1)
        losses = {name: (total / elements).tolist() for name, total in totals.items()}
        histograms = tally.histograms()
        return self._metrics(histograms, losses), histograms

    def by_lane(self) -> list[tuple[dict[str, float], list[np.ndarray]]]:
        """What `evaluate` gives, lane by lane: metrics, and the counts [K] of each stream."""
        metrics, histograms = self.evaluate()
        return [(mine, [h[lane] for h in histograms]) for lane, mine in enumerate(metrics)]

    @torch.no_grad()
    def counts(self) -> list[np.ndarray]:
        """The counts [L, K] of each stream alone: those of `evaluate`, without decoding."""
        self.stack.model.train(False)
        tally = _Tally(self)
        for _, x in self._batches(self.first):
            codes: list[Tensor] = []
            self.stack.encode(x, _Lookup(codes))
            tally.add(codes)
        return tally.histograms()

    @torch.no_grad()
    def reconstruct(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Held-out examples as they are normalised [n, C, ...], and what becomes of them.

        Args:
            first: first frame of each clip, or the item: int64 [n].

        Returns:
            The examples, and their reconstructions by each lane [L, n, C, ...].
        """
        self.stack.model.train(False)
        inputs, outputs = [], []
        for _, x in self._batches(first):
            inputs.append(x[0].cpu().numpy())
            outputs.append(self.stack.decode(self.stack.encode(x, _Lookup([]))).cpu().numpy())
        return np.concatenate(inputs), np.concatenate(outputs, axis=1)

    @torch.no_grad()
    def looks(self, first: np.ndarray) -> Look:
        """What the first quantizer's lookup of held-out examples compares; groups are lanes.

        Args:
            first: as for `reconstruct`.
        """
        self.stack.model.train(False)
        found: list[Look] = []
        for _, x in self._batches(first):
            self.stack.encode(x, _FirstLook(self.stack.quantizers[0], found))
        return replace(found[0], z_e=torch.cat([look.z_e for look in found], dim=1))

    def _batches(self, first: np.ndarray) -> Iterator[tuple[int, Tensor]]:
        """The number of the first example of each batch, and the batch for all lanes."""
        places, lanes = self.feed.places(first), len(self.stack.trials)
        for start in range(0, len(first), _BATCH):
            one = self.feed.batch(places[start : start + _BATCH])
            yield start, one.unsqueeze(0).expand(lanes, *one.shape)

    def _metrics(
        self, histograms: list[np.ndarray], losses: dict[str, list[float]]
    ) -> list[dict[str, float]]:
        in_use: list[list[int]] = []
        rates: list[float] = []
        for quantizer, latents in zip(self.stack.quantizers, self.per_example, strict=True):
            in_use += [codes.tolist() for codes in quantizer.in_use]
            rates += [latents / self.frames] * quantizer.streams
        return [
            codebook_metrics(
                [histogram[lane] for histogram in histograms], [n[lane] for n in in_use], rates
            )
            | {name: values[lane] for name, values in losses.items()}
            for lane in range(len(self.stack.trials))
        ]


class _Tally:
    """Counts codes, of each level as many latents as the evaluation asks for."""

    def __init__(self, evaluator: Evaluator) -> None:
        stack = evaluator.stack
        self.quantizers, self.left = stack.quantizers, list(evaluator.latents)
        self.lanes = len(stack.trials)
        self.counts = [
            torch.zeros(self.lanes * q.streams * q.size, device=stack.device, dtype=torch.float64)
            for q in stack.quantizers
        ]

    def add(self, codes: list[Tensor]) -> None:
        """Count a batch's codes of each level [L, S, N]."""
        for place, quantizer in enumerate(self.quantizers):
            counted = codes[place][..., : self.left[place]]
            self.left[place] -= counted.shape[-1]
            flat = flatten_codes(counted.flatten(0, 1), quantizer.size)
            self.counts[place].index_add_(0, flat, torch.ones_like(flat, dtype=torch.float64))

    def histograms(self) -> list[np.ndarray]:
        """Counts [L, K] of each stream; waits for the device."""
        found: list[np.ndarray] = []
        for quantizer, flat in zip(self.quantizers, self.counts, strict=True):
            shape = (self.lanes, quantizer.streams, quantizer.size)
            found += list(flat.view(shape).cpu().numpy().swapaxes(0, 1))
        return found


class _Lookup:
    """Quantizes with frozen codebooks, and keeps each level's codes [L, S, N]."""

    def __init__(self, codes: list[Tensor]) -> None:
        self.codes = codes

    def __call__(self, quantizer: Quantizer, z: Tensor) -> Tensor:
        self.codes.append(quantizer.look_up(z))
        return quantizer.embed(self.codes[-1])


class _FirstLook:
    """Quantizes likewise, and keeps what the first quantizer compares."""

    def __init__(self, first: Quantizer, found: list[Look]) -> None:
        self.first, self.found = first, found

    def __call__(self, quantizer: Quantizer, z: Tensor) -> Tensor:
        if quantizer is self.first:
            self.found.append(quantizer.look(z))
        return quantizer.embed(quantizer.look_up(z))


def _shuffled(codes: Tensor, seed: int) -> Tensor:
    """Codes [..., N] at other positions: the same permutation for every trial."""
    order = torch.randperm(codes.shape[-1], generator=torch.Generator().manual_seed(seed))
    return codes[..., order.to(codes.device)]
