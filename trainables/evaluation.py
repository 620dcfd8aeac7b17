"""Held-out evaluation of all lanes of a stack: the same latents for every trial."""

from __future__ import annotations

import math

import numpy as np
import torch

from trainables.codebooks.technique import flatten_codes
from trainables.config import TrialConfig
from trainables.data import Dataset
from trainables.feed import Feed
from trainables.metrics import codebook_metrics
from trainables.model import from_latents, latent_shape, to_latents
from trainables.stack import Stack

# Examples encoded at a time.
_BATCH = 64


class Evaluator:
    """Evaluates stacks of one signature on one fixed part of the held-out split."""

    def __init__(self, stack: Stack, dataset: Dataset) -> None:
        """Choose the examples, by the split's seed alone, that hold the latents to count."""
        config: TrialConfig = stack.trials[0]
        self.stack = stack
        self.per_example = math.prod(latent_shape(stack.model, dataset.example_shape))
        wanted = math.ceil(config.evaluation.latents / self.per_example)
        available = len(dataset.heldout)
        order = np.random.default_rng(config.data.split_seed).permutation(available)
        self.first = dataset.heldout.starts[np.sort(order[:wanted])]
        self.latents = min(config.evaluation.latents, len(self.first) * self.per_example)
        self.frames = dataset.clip_frames or 1
        self.feed = Feed(dataset.heldout, dataset.clip_frames, stack.device, stack.dtype)
        self.warning = (
            f"the held-out split has {available * self.per_example} latents, "
            f"{config.evaluation.latents} were asked for: large perplexities come out low"
            if available < wanted
            else None
        )

    @torch.no_grad()
    def evaluate(self) -> tuple[list[dict[str, float]], np.ndarray]:
        """Metrics of each lane, and the counts [L, K] behind them. Waits for the device.

        recon_loss is the mean squared error on normalised inputs; recon_loss_unquantized is the
        same without a quantizer, recon_loss_shuffled with the codes of other positions.
        """
        stack, size = self.stack, self.stack.codebook.size
        stack.model.train(False)
        lanes = len(stack.trials)
        counts = torch.zeros(lanes * size, device=stack.device, dtype=torch.float64)
        errors = {
            name: torch.zeros(lanes, device=stack.device, dtype=torch.float64)
            for name in ("recon_loss", "recon_loss_unquantized", "recon_loss_shuffled")
        }
        places = self.feed.places(self.first)
        left, elements = self.latents, 0
        for start in range(0, len(self.first), _BATCH):
            one = self.feed.batch(places[start : start + _BATCH])
            x = one.unsqueeze(0).expand(lanes, *one.shape)
            z = stack.encode(x)
            latents = to_latents(z)
            codes = stack.codebook.look_up(latents)
            counted = flatten_codes(codes[:, :left], size)
            counts.index_add_(0, counted, torch.ones_like(counted, dtype=counts.dtype))
            left -= min(left, codes.shape[1])
            elements += one.numel()
            # The same permutation for every trial; its seed is the batch's place.
            shuffle = torch.randperm(
                codes.shape[1], generator=torch.Generator().manual_seed(start)
            ).to(stack.device)
            for name, inputs in (
                ("recon_loss", stack.codebook.embed(codes)),
                ("recon_loss_unquantized", latents),
                ("recon_loss_shuffled", stack.codebook.embed(codes[:, shuffle])),
            ):
                x_hat = stack.decode(from_latents(inputs, z))
                errors[name] += (x_hat - x).double().square().flatten(1).sum(1)
        usable = stack.codebook.usable
        in_use = [size] * lanes if usable is None else usable.sum(-1).tolist()
        histogram = counts.view(lanes, size).cpu().numpy()
        losses = {name: (total / elements).tolist() for name, total in errors.items()}
        rate = self.per_example / self.frames
        metrics = [
            codebook_metrics([histogram[lane]], [in_use[lane]], [rate])
            | {name: values[lane] for name, values in losses.items()}
            for lane in range(lanes)
        ]
        return metrics, histogram
