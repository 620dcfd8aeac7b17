"""A stack: trials of one signature trained together in one step; a plain trial is a stack of one.

The step never waits for the device. A lane's numbers do not depend on its neighbours: it has its
own seed, data order, noise, learning rates and step count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.adam import LaneAdam
from trainables.codebooks import Clock, Codebook
from trainables.config import TrialConfig
from trainables.data import Dataset
from trainables.errors import InputError
from trainables.feed import Feed, Order
from trainables.model import build_model, from_latents, to_latents

# Steps whose places in the data travel to the device in one transfer.
_CHUNK = 64


class Stack:
    """Everything that trains: parameters, optimiser, codebooks and where each lane stands."""

    def __init__(
        self, trials: Sequence[TrialConfig], dataset: Dataset, device: torch.device | None = None
    ) -> None:
        """Set up one lane a trial; k-means seeding happens here.

        Raises:
            InputError: trials of different signatures, or a model that does not fit the data.
        """
        if len({trial.signature() for trial in trials}) != 1:
            raise InputError("trials of one stack must have the same signature", "stack")
        self.trials = list(trials)
        config = trials[0]
        self.device = device or default_device()
        self.dtype, self.autocast = precision(config.training.precision, self.device)
        self.batch_size = config.training.batch_size
        self.feed = Feed(dataset.train, dataset.clip_frames, self.device, self.dtype)
        self.orders = [Order(dataset.train, trial.seed) for trial in trials]
        self.model = build_model(config.model, dataset.example_shape, config.codebook.dim)
        self.codebook = Codebook(self.trials, self.device, self.dtype)
        self.buffers = self._stacked([self.model.buffers() for _ in trials])
        initial = self._stacked([self.model.initial(trial.seed) for trial in trials])
        rates = self._per_lane([trial.training.lr for trial in trials])
        self.adam = LaneAdam(initial, rates)
        self.codebook_adam: LaneAdam | None = None
        if self.codebook.trains_codebook:
            ratios = self.codebook.settings["update"]["lr_ratio"]
            codes = {"codebook": self.codebook.state["codebook"]}
            self.codebook_adam = LaneAdam(codes, rates * ratios)
            self.codebook.adopt(self.codebook_adam.parameters["codebook"])
        self.samples = [0 for _ in trials]
        self.steps = [0 for _ in trials]
        self.clock_samples = torch.zeros(len(trials), dtype=torch.int64, device=self.device)
        self.clock_steps = torch.zeros_like(self.clock_samples)
        self.seeds = torch.tensor([trial.seed for trial in trials], device=self.device)
        self.finite = torch.ones(len(trials), dtype=torch.bool, device=self.device)
        self.totals: dict[str, Tensor] = {}
        self._seed_codebook(config, dataset)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of encoder and decoder, {name: [L, ...]}."""
        return {**self.adam.parameters, **self.buffers}

    def advance(self, steps: int, progress: Callable[[int], None] | None = None) -> None:
        """Train all lanes for some steps; returns without waiting for the device.

        Args:
            steps: how many.
            progress: called after every few steps with the first lane's samples so far.
        """
        self.model.train(True)
        self.totals = {}
        while steps > 0:
            chunk = min(steps, _CHUNK)
            count = chunk * self.batch_size
            first = [
                o.first_frames(n, count) for o, n in zip(self.orders, self.samples, strict=True)
            ]
            shape = (len(self.trials), chunk, self.batch_size)
            places = self.feed.places(np.stack(first).reshape(shape))
            for i in range(chunk):
                self.step(self.feed.batch(places[:, i]))
            steps -= chunk
            if progress is not None:
                progress(self.samples[0])

    def step(self, x: Tensor) -> None:
        """One training step on examples [L, B, C, ...]."""
        before = list(self.samples)
        self.samples = [n + self.batch_size for n in before]
        self.steps = [n + 1 for n in self.steps]
        samples_before = self.clock_samples
        self.clock_samples = samples_before + self.batch_size
        self.clock_steps = self.clock_steps + 1
        clock = Clock(samples_before, self.clock_samples, self.clock_steps, self.seeds)

        weights = self.weights
        lanes = zip(self.trials, self.steps, strict=True)
        self.model.draw([(trial.seed << 32) + step for trial, step in lanes])
        with self._autocast():
            z = self.model.encode(weights, x)
        quantized = self.codebook.quantize(to_latents(z.to(self.dtype)), clock)
        with self._autocast():
            x_hat = self.model.decode(weights, from_latents(quantized.z_q, z))
        recon_loss = (x_hat.to(self.dtype) - x).square().flatten(1).mean(1)
        loss = recon_loss + quantized.loss

        parameters = list(self.adam.parameters.values())
        # A user's modules may have parameters that they never use: their gradient is zero.
        if self.codebook_adam is None:
            self.adam.step(torch.autograd.grad(loss.sum(), parameters, materialize_grads=True))
        else:
            codes = self.codebook_adam.parameters["codebook"]
            *gradients, codes_gradient = torch.autograd.grad(
                loss.sum(), [*parameters, codes], materialize_grads=True
            )
            self.adam.step(gradients)
            self.codebook_adam.step([codes_gradient])
        self.codebook.after_step(quantized.step, before, self.samples)

        self.finite &= loss.detach().isfinite()
        self._add("recon_loss", recon_loss.detach())
        for name, term in quantized.terms.items():
            self._add(name, term)

    def encode(self, x: Tensor) -> Tensor:
        """Latents [L, B, d, ...] of examples [L, B, C, ...], without gradient."""
        with torch.no_grad(), self._autocast():
            return self.model.encode(self.weights, x).to(self.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Reconstructions [L, B, C, ...] of latents [L, B, d, ...], without gradient."""
        with torch.no_grad(), self._autocast():
            return self.model.decode(self.weights, z).to(self.dtype)

    def lane_state(self, lane: int) -> dict[str, Tensor]:
        """All tensors of one lane, on the CPU, under names that `load_lane` takes."""
        return {name: value[lane].detach().cpu().clone() for name, value in self._all().items()}

    def load_lane(self, lane: int, state: dict[str, Tensor], samples: int) -> None:
        """Set one lane to a saved state that had drawn `samples` samples.

        Raises:
            InputError: tensors missing, left over or of another shape.
        """
        mine = self._all()
        if mine.keys() != state.keys():
            odd = sorted(mine.keys() ^ state.keys())[0]
            raise InputError(f"tensor {odd!r} is on one side only", "checkpoint")
        for name, value in mine.items():
            if value[lane].shape != state[name].shape:
                raise InputError(
                    f"tensor {name!r} has shape {tuple(state[name].shape)}, allowed: "
                    f"{tuple(value[lane].shape)}",
                    "checkpoint",
                )
        with torch.no_grad():
            for name, value in mine.items():
                value[lane] = state[name].to(self.device)
        self.samples[lane] = samples
        self.steps[lane] = samples // self.batch_size

    def _all(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.weights.items()}
        tensors |= {f"codebook.{k}": v for k, v in self.codebook.state.items()}
        optimisers = {"adam": self.adam, "codebook_adam": self.codebook_adam}
        for prefix, adam in optimisers.items():
            if adam is not None:
                tensors[f"{prefix}.steps"] = adam.steps
                for moment, values in adam.moments().items():
                    tensors |= {f"{prefix}.{moment}.{k}": v for k, v in values.items()}
        tensors["samples"], tensors["steps"] = self.clock_samples, self.clock_steps
        tensors["finite"] = self.finite
        return tensors

    def _seed_codebook(self, config: TrialConfig, dataset: Dataset) -> None:
        kmeans = config.codebook.kmeans
        if kmeans is None:
            return
        # A pass over examples that each lane picks from its seed, apart from its training order.
        self.model.train(False)
        latents: list[Tensor] = []
        pools = [Order(dataset.train, (trial.seed + 1) << 32) for trial in self.trials]
        drawn = 0
        while sum(part.shape[1] for part in latents) < kmeans.latents:
            first = np.stack([pool.first_frames(drawn, 64) for pool in pools])
            z = self.encode(self.feed.batch(self.feed.places(first)))
            latents.append(to_latents(z))
            drawn += 64
        self.codebook.seed(torch.cat(latents, dim=1)[:, : kmeans.latents])

    def _stacked(self, lanes: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in stacked.items()
        }

    def _per_lane(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=self.dtype)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _add(self, name: str, value: Tensor) -> None:
        self.totals[name] = self.totals[name] + value if name in self.totals else value


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(name: str, device: torch.device) -> tuple[torch.dtype, bool]:
    """The dtype of parameters and quantizer, and whether the model runs under bf16 autocast."""
    if name == "float64":
        return torch.float64, False
    return torch.float32, name == "bfloat16" or (name == "auto" and device.type == "cuda")
