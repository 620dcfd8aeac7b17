"""A stack: trials of one signature trained together in one step; a plain trial is a stack of one.

The step never waits for the device. A lane's numbers do not depend on its neighbours: it has its
own seed, data order, noise, learning rates and step count.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.adam import LaneAdam
from trainables.captured import CapturedStep, CudaRecorder
from trainables.codebooks import Clock, Plan, Quantized, Quantizer
from trainables.config import TrialConfig
from trainables.data import Dataset
from trainables.errors import InputError
from trainables.feed import Feed, Order
from trainables.model import from_latents, to_latents
from trainables.model_kinds import build_model
from trainables.schedule import LaneRates

# What the host knows of a step, for each quantizer.
Plans = tuple[Plan, ...]

# Steps whose places in the data travel to the device in one transfer.
_CHUNK = 64


class Stack:
    """Everything that trains: parameters, optimiser, codebooks and where each lane stands."""

    def __init__(
        self,
        trials: Sequence[TrialConfig],
        dataset: Dataset,
        device: torch.device | None = None,
        seed: bool = True,
    ) -> None:
        """Set up one lane a trial; k-means seeding happens here.

        Without `seed` there is none, for lanes that will all be loaded.

        Raises:
            InputError: trials of different signatures, or a model that does not fit the data.
        """
        if len({trial.signature() for trial in trials}) != 1:
            raise InputError("trials of one stack must have the same signature", "stack")
        self.trials, self._split = list(trials), dataset.train
        config = trials[0]
        self.device = device or default_device()
        self.dtype, self.autocast = precision(config.training.precision, self.device)
        self.batch_size = config.training.batch_size
        self.feed = Feed(dataset.train, dataset.clip_frames, self.device, self.dtype)
        self.orders = [Order(self._split, trial.seed) for trial in trials]
        self.model = build_model(config.model, dataset.example_shape, config.codebook.dim)
        self.seeds = torch.tensor([trial.seed for trial in trials], device=self.device)
        configs = [trial.codebook for trial in trials]
        budgets = [trial.training.samples for trial in trials]
        self.quantizers = [
            Quantizer(configs, budgets, self.seeds, self.device, self.dtype, place)
            for place in range(self.model.levels)
        ]
        self.buffers = self._stacked([self.model.buffers() for _ in trials])
        initial = self._stacked([self.model.initial(trial.seed) for trial in trials])
        self._model_names = list(initial)
        self.rates = LaneRates(self.trials, self.device, self.dtype)
        self.adam = LaneAdam(initial | self._of_quantizers("trained"), self.rates.model)
        self.codebook_adam: LaneAdam | None = None
        codes = self._of_quantizers("trained_codes")
        if codes:
            self.codebook_adam = LaneAdam(codes, self.rates.codes)
        self._adopt()
        self.samples = [0 for _ in trials]
        self.steps = [0 for _ in trials]
        zeros = torch.zeros(len(trials), dtype=torch.int64, device=self.device)
        self.counters = {"samples": zeros, "steps": zeros.clone(), "finite": zeros == 0}
        self.totals: dict[str, Tensor] = {}
        # What runs a step that is planned, where it is not `run`.
        self.runner: Callable[[Tensor, Plans], None] | None = None
        if self.device.type == "cuda" and self.model.unstackable is None:
            self.runner = CapturedStep(self, CudaRecorder(self.device))
        if seed:
            self._seed_codebook(config, dataset)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of encoder and decoder, {name: [L, ...]}."""
        return {name: self.adam.parameters[name] for name in self._model_names} | self.buffers

    def advance(self, steps: int, progress: Callable[[int], None] | None = None) -> None:
        """Train all lanes for some steps; returns without waiting for the device.

        Args:
            steps: how many.
            progress: called after every few steps with the first lane's samples so far.
        """
        for total in self.totals.values():
            total.zero_()
        self.train(steps, progress)

    def train(self, steps: int, progress: Callable[[int], None] | None = None) -> None:
        """What `advance` does, with the totals going on from where they are."""
        self.model.train(True)
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
        plans = self.plan()
        if self.runner is not None:  # for models that share a stack, which draw nothing
            self.runner(x, plans)
            return
        lanes = zip(self.trials, self.steps, strict=True)
        self.model.draw([(trial.seed << 32) + step for trial, step in lanes])
        self.run(x, plans)

    def plan(self) -> Plans:
        """Count a step on the host, and say what it knows of it."""
        before = self.samples
        self.samples = [n + self.batch_size for n in before]
        self.steps = [n + 1 for n in self.steps]
        return tuple(q.plan(before, self.samples, self.steps) for q in self.quantizers)

    def run(self, x: Tensor, plans: Plans) -> None:
        """The step itself: which operators run depends on the plans and on `layout` alone."""
        counters = self.counters
        before, steps = counters["samples"], counters["steps"] + 1
        after = before + self.batch_size
        counters["samples"], counters["steps"] = after, steps
        clock = Clock(before, after, steps, self.seeds)

        weights = self.weights
        with self._autocast():
            features = self.model.encode(weights, x)
        quantized: list[Quantized] = []
        z_q: list[Tensor] = []
        for quantizer, plan in zip(self.quantizers, plans, strict=True):
            with self._autocast():
                z = self.model.latents(weights, features, z_q)
            latents = to_latents(z.to(self.dtype))
            quantized.append(quantizer.quantize(latents, clock, most=plan.most))
            z_q.append(from_latents(quantized[-1].z_q, z))
        with self._autocast():
            x_hat = self.model.decode(weights, z_q)
        recon_loss = (x_hat.to(self.dtype) - x).square().flatten(1).mean(1)
        loss = functools.reduce(operator.add, (q.loss for q in quantized), recon_loss)

        parameters = list(self.adam.parameters.values())
        rate, codes_rate = self.rates.factors(before, after)
        # A user's modules may have parameters that they never use: their gradient is zero.
        if self.codebook_adam is None:
            gradients = torch.autograd.grad(loss.sum(), parameters, materialize_grads=True)
            self.adam.step(gradients, rate)
        else:
            codes = list(self.codebook_adam.parameters.values())
            gradients = torch.autograd.grad(
                loss.sum(), [*parameters, *codes], materialize_grads=True
            )
            self.adam.step(gradients[: len(parameters)], rate)
            self.codebook_adam.step(gradients[len(parameters) :], codes_rate)
        for quantizer, one, plan in zip(self.quantizers, quantized, plans, strict=True):
            quantizer.finish(one, plan.due)

        counters["finite"] = counters["finite"] & loss.detach().isfinite()
        self._add("recon_loss", recon_loss.detach())
        for one in quantized:
            for name, term in one.terms.items():
                self._add(name, term)

    @property
    def finite(self) -> Tensor:
        """Whether every loss of a lane was finite so far, bool [L]."""
        return self.counters["finite"]

    @property
    def layout(self) -> tuple[object, ...]:
        """What of the lanes' settings decides which operators a step runs."""
        return (self.rates.scheduled, *(q.layout for q in self.quantizers))

    @property
    def rebindable(self) -> list[dict[str, Tensor]]:
        """All that a step may set to new tensors, where it does not change them in place."""
        quantizers = [book for q in self.quantizers for book in q.rebindable]
        return [self.counters, self.totals, *quantizers]

    def put(self, lane: int, trial: TrialConfig, state: dict[str, Tensor], samples: int) -> None:
        """Let another trial of the same signature have a lane; the others do not notice.

        Args:
            lane: whose.
            trial: its config.
            state: of the trial, as `lane_state` gives it.
            samples: that it has drawn.

        Raises:
            InputError: another signature, or a state that is not such a trial's.
        """
        if trial.signature() != self.trials[lane].signature():
            raise InputError("trials of one stack must have the same signature", "stack")
        if trial is not self.trials[lane]:  # or only its state is another one
            self.trials[lane], self.orders[lane] = trial, Order(self._split, trial.seed)
            self.seeds[lane] = trial.seed
            for quantizer in self.quantizers:
                quantizer.set_lane(lane, trial.codebook, trial.training.samples)
            self.rates.take(self.trials)
        self.load_lane(lane, state, samples)
        self.clear_totals(lane)

    def clear_totals(self, lane: int) -> None:
        """Let a lane's totals begin anew."""
        for total in self.totals.values():
            total[lane] = 0

    def load_totals(self, lane: int, totals: Mapping[str, float]) -> None:
        """Let a lane's totals go on from others."""
        self.clear_totals(lane)
        for name, value in totals.items():
            if name not in self.totals:
                self.totals[name] = torch.zeros_like(self.rates.model)
            self.totals[name][lane] = value

    def lane_totals(self, lane: int) -> dict[str, float]:
        """The loss and each term that counts in a lane, summed over steps; waits for the device."""
        counts = {"recon_loss"}.union(*(q.weighs(lane) for q in self.quantizers))
        return {name: float(total[lane]) for name, total in self.totals.items() if name in counts}

    @torch.no_grad()
    def encode(self, x: Tensor, through: Callable[[Quantizer, Tensor], Tensor]) -> list[Tensor]:
        """What the decoder gets for examples [L, B, C, ...], level by level [L, B, d, ...].

        Args:
            x: the examples.
            through: from a level's quantizer and its latents [L, N, d] to quantized ones.
        """
        weights, z_q = self.weights, list[Tensor]()
        with self._autocast():
            features = self.model.encode(weights, x)
        for quantizer in self.quantizers:
            with self._autocast():
                z = self.model.latents(weights, features, z_q).to(self.dtype)
            z_q.append(from_latents(through(quantizer, to_latents(z)), z))
        return z_q

    def decode(self, z_q: Sequence[Tensor]) -> Tensor:
        """Reconstructions [L, B, C, ...] of latents [L, B, d, ...], without gradient."""
        with torch.no_grad(), self._autocast():
            return self.model.decode(self.weights, z_q).to(self.dtype)

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
        for place, quantizer in enumerate(self.quantizers):
            state = quantizer.all_state()
            tensors |= {f"codebook.{self._level(place)}{k}": v for k, v in state.items()}
        optimisers = {"adam": self.adam, "codebook_adam": self.codebook_adam}
        for prefix, adam in optimisers.items():
            if adam is not None:
                tensors[f"{prefix}.steps"] = adam.steps
                for moment, values in adam.moments().items():
                    tensors |= {f"{prefix}.{moment}.{k}": v for k, v in values.items()}
        tensors |= self.counters
        # To a codebook its groups are lanes.
        lanes = len(self.trials)
        return {
            name: value if value.shape[0] == lanes else value.unflatten(0, (lanes, -1))
            for name, value in tensors.items()
        }

    def _seed_codebook(self, config: TrialConfig, dataset: Dataset) -> None:
        kmeans = config.codebook.kmeans
        if kmeans is None:
            return
        # A pass over examples that each lane picks from its seed, apart from its training order.
        self.model.train(False)
        orders = [Order(dataset.train, (trial.seed + 1) << 32) for trial in self.trials]
        for quantizer in self.quantizers:
            pool = _Pool(quantizer)
            drawn = 0
            while pool.count < kmeans.latents:
                first = np.stack([order.first_frames(drawn, 64) for order in orders])
                self.encode(self.feed.batch(self.feed.places(first)), pool)
                drawn += 64
            quantizer.seed(torch.cat(pool.latents, dim=1)[:, : kmeans.latents])

    def _of_quantizers(self, what: str) -> dict[str, Tensor]:
        """The quantizers' trained tensors under names of their own."""
        return {
            f"codebook.{self._level(place)}{name}": value
            for place, quantizer in enumerate(self.quantizers)
            for name, value in getattr(quantizer, what).items()
        }

    def _adopt(self) -> None:
        """Hand the optimisers' parameters to the quantizers."""
        owned = dict(self.adam.parameters)
        owned |= self.codebook_adam.parameters if self.codebook_adam else {}
        for place, quantizer in enumerate(self.quantizers):
            prefix = f"codebook.{self._level(place)}"
            mine = {k.removeprefix(prefix): v for k, v in owned.items() if k.startswith(prefix)}
            quantizer.adopt(mine)

    def _level(self, place: int) -> str:
        return "" if len(self.quantizers) == 1 else f"{('top', 'bottom')[place]}."

    def _stacked(self, lanes: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in stacked.items()
        }

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _add(self, name: str, value: Tensor) -> None:
        self.totals[name] = self.totals[name] + value if name in self.totals else value


class _Pool:
    """Collects the latents of one level; a finer one sees what the coarser were seeded with."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer, self.latents, self.count = quantizer, list[Tensor](), 0

    def __call__(self, quantizer: Quantizer, z: Tensor) -> Tensor:
        if quantizer is self.quantizer:
            self.latents.append(z)
            self.count += z.shape[1]
        return quantizer.embed(quantizer.look_up(z))


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def precision(name: str, device: torch.device) -> tuple[torch.dtype, bool]:
    """The dtype of parameters and quantizer, and whether the model runs under bf16 autocast."""
    if name == "float64":
        return torch.float64, False
    return torch.float32, name == "bfloat16" or (name == "auto" and device.type == "cuda")
