"""One trial in a plain process: train to the next report, evaluate, save, resume."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables import __version__
from trainables.checkpoint import read_trial, write_tensors
from trainables.codebooks.exported import exported_name
from trainables.config import TrialConfig
from trainables.data import Dataset, load_dataset
from trainables.denormals import flushed_denormals
from trainables.errors import InputError
from trainables.evaluation import Evaluator
from trainables.memory import check_fits, told_out_of_memory
from trainables.meter import Meter
from trainables.stack import Stack, default_device

CHECKPOINT = "checkpoint.safetensors"

Report = dict[str, Any]


@dataclass
class Since:
    """The last report: its step, and the seconds of training since."""

    step: int
    seconds: float = 0.0


class Trainer:
    """Trains one TrialConfig as a stack of one and reports on the way.

    The same config and seed give the same numbers on the same CPU and number of threads, also
    across `save` and `load`.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset | None = None,
        device: torch.device | None = None,
        gpus: float | None = None,
    ) -> None:
        """Build model and codebook, seed the codebook; load the data where none is given.

        `gpus` is the share of a GPU that the trial has: all of the one it is on, unless told.
        """
        self.config = config
        self.dataset = dataset if dataset is not None else load_dataset(config.data)
        device = device or default_device()
        check_fits(config, self.dataset.example_shape, device)
        with told_out_of_memory(config):
            self.stack = Stack([config], self.dataset, device)
            self.evaluator = Evaluator(self.stack, self.dataset)
        on_gpu = self.stack.device.type == "cuda"
        self.gpus = gpus if gpus is not None else float(on_gpu)
        self.lane = 0  # of the stack
        self.seconds = self.cpu_seconds = self.gpu_seconds = 0.0
        self.reports = 0
        self.report: Report = {}
        # The lane's state at the last report, where its stack may be further on by now.
        self.held: dict[str, torch.Tensor] | None = None
        self._counts: list[np.ndarray] | None = None
        self._finite = True
        self._since = Since(0)

    @property
    def warnings(self) -> list[str]:
        """What the user should know about data and evaluation."""
        more = [self.evaluator.warning] if self.evaluator.warning else []
        return [*self.dataset.warnings, *more]

    @property
    def done(self) -> bool:
        """Whether the budget is spent or the trial has diverged."""
        return self.samples >= self.config.training.samples or not self._finite

    @property
    def complete(self) -> bool:
        """Whether the budget is spent without divergence."""
        return self.done and self._finite

    @property
    def samples(self) -> int:
        """Samples drawn so far; those of the last report, where the state of that is held."""
        if self.held is not None:
            return self._since.step * self.config.training.batch_size
        return self.stack.samples[self.lane]

    @property
    def goal(self) -> int:
        """The step of the next report."""
        training = self.config.training
        goal = math.ceil(training.samples * (self.reports + 1) / training.reports)
        # With more reports than steps some would come without a step between them.
        return max(math.ceil(goal / training.batch_size), self._since.step + 1)

    @flushed_denormals()
    def advance(self, progress: Callable[[int], None] | None = None) -> Report:
        """Train to the next report and return it; waits for the device once.

        Args:
            progress: called now and then with the number of samples drawn so far.

        Raises:
            OutOfMemoryError: the device has too little memory for the config.
        """
        meter = Meter()
        with told_out_of_memory(self.config):
            self.stack.advance(self.goal - self.stack.steps[self.lane], progress)
        totals = self.stack.lane_totals(self.lane)
        self.trained(meter)
        with told_out_of_memory(self.config):
            [(metrics, counts)] = self.evaluator.by_lane()
        self.charge(meter)
        return self.conclude(totals, metrics, counts)

    def charge(self, meter: Meter, share: float = 1.0) -> None:
        """Count what was spent on the trial, which had this share of it."""
        seconds = meter.seconds
        self.seconds += seconds
        self.gpu_seconds += self.gpus * seconds * share
        self.cpu_seconds += meter.cpu_seconds * share

    def trained(self, meter: Meter) -> None:
        """Count the time of steps."""
        self._since.seconds += meter.seconds

    def conclude(
        self, totals: Mapping[str, float], metrics: Mapping[str, float], counts: list[np.ndarray]
    ) -> Report:
        """The report of the steps since the last one.

        Args:
            totals: the loss and its terms, summed over these steps.
            metrics: of the evaluation after them.
            counts: how often each code [K] of each stream was chosen in it.
        """
        self.reports += 1
        steps = self.stack.steps[self.lane] - self._since.step
        self._finite = bool(self.stack.finite[self.lane])
        report = self._judged(metrics, counts)
        report |= {f"training/{name}": total / steps for name, total in totals.items()}
        self.report = report | {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "gpu_seconds": self.gpu_seconds,
            "steps_per_second": steps / self._since.seconds,
            "complete": self.complete,
        }
        self._since = Since(self.stack.steps[self.lane])
        return self.report

    def evaluate(self) -> Report:
        """Metrics on the held-out set as things stand."""
        with told_out_of_memory(self.config):
            [(metrics, counts)] = self.evaluator.by_lane()
        return self._judged(metrics, counts)

    def _judged(self, metrics: Mapping[str, float], counts: list[np.ndarray]) -> Report:
        self._counts = counts
        finite = self._finite and math.isfinite(metrics["recon_loss"])
        self._finite = finite
        reason = "" if finite else f"diverged: the loss is not finite after {self.samples} samples"
        return {"samples": self.samples, **metrics, "diverged": not finite, "reason": reason}

    def counts(self) -> list[np.ndarray]:
        """How often each code [K] of each stream was chosen in the last evaluation."""
        if self._counts is None:  # a checkpoint does not have them
            self._counts = [stream[0] for stream in self.evaluator.counts()]
        return self._counts

    def save(self, folder: Path) -> Path:
        """Write the checkpoint into `folder`; returns its path."""
        path = folder / CHECKPOINT
        header = {
            "trial": self.config.to_dict(),
            "samples": self.samples,
            "reports": self.reports,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "gpu_seconds": self.gpu_seconds,
            "report": self.report,
            "made": self.made(),
        }
        state = self.held if self.held is not None else self.stack.lane_state(self.lane)
        write_tensors(path, state, header)
        return path

    def load(self, folder: Path, name: str = CHECKPOINT) -> None:
        """Go on from a checkpoint of the same config.

        Raises:
            InputError: no checkpoint there, or one of another config or of other data.
        """
        path = folder / name
        tensors, header = read_trial(path)
        if header["trial"] != self.config.to_dict():
            raise InputError("was written by another config", str(path))
        if header["made"]["data_fingerprint"] != self.dataset.fingerprint:
            raise InputError("was written with other data than there are now", str(path))
        self.stack.load_lane(self.lane, tensors, header["samples"])
        self._since = Since(self.stack.steps[self.lane])
        self.reports, self.seconds = header["reports"], header["seconds"]
        # Checkpoints of before these were counted lack them.
        self.cpu_seconds = header.get("cpu_seconds", 0.0)
        self.gpu_seconds = header.get("gpu_seconds", 0.0)
        self.report = header["report"]
        self._counts = None
        self._finite = not self.report.get("diverged", False)

    def made(self) -> dict[str, Any]:
        """What the numbers depend on beside the config."""
        return {
            "data_fingerprint": self.dataset.fingerprint,
            # What the weights take for input: examples as (x - mean) / std.
            "example_shape": list(self.dataset.example_shape),
            "mean": self.dataset.mean,
            "std": self.dataset.std,
            "device": self.stack.device.type,
            "threads": torch.get_num_threads(),
            "versions": {
                "vqtune": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }


def weights_of(checkpoint: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Encoder, decoder and codebook from a checkpoint's tensors, for use elsewhere."""
    prefix = "model."
    kept = {k.removeprefix(prefix): v for k, v in checkpoint.items() if k.startswith(prefix)}
    for name, value in checkpoint.items():
        own = exported_name(name) if name.startswith("codebook.") else None
        if own is not None:
            kept[own] = value
    return kept
