"""How many trials should train together on a device: measured, about a second for each number.

More trials at once finish more of them in the same time where the device has room left, but a
search learns less from one before it proposes the next.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainables.captured import CapturedStep
from trainables.config import TrialConfig
from trainables.data import Dataset, load_dataset
from trainables.denormals import flushed_denormals
from trainables.memory import OutOfMemoryError, told_out_of_memory
from trainables.stack import Stack, default_device, wait_for

SIZES = (4, 16, 64)

# Lanes have to train so much more than trials that each have a process: those have proven
# themselves. And so much more than fewer lanes.
_WORTH = 1.1
# Steps before the clock starts, in which graphs are captured, and steps between two looks at it.
_WARM_UP, _STEPS = 24, 8


@dataclass(frozen=True)
class Calibration:
    """Samples per second of one device.

    Attributes:
        plain: of a trial alone, operator by operator.
        captured: of a trial alone with its step captured; None where it is not.
        lanes: of all trials of a stack together, by their number.
        reason: why there is no figure of some; empty where all are there.
    """

    plain: float
    captured: float | None
    lanes: dict[int, float]
    reason: str = ""

    def best(self, at_once: int) -> int | None:
        """The number of lanes; None where `at_once` trials in processes of their own do better.

        Of these it is assumed that they do not get into each other's way.
        """
        bar, best = _WORTH * at_once * max(self.plain, self.captured or 0.0), None
        for size, rate in sorted(self.lanes.items()):
            if rate > bar:
                bar, best = _WORTH * rate, size
        return best

    def told(self, at_once: int) -> str:
        """What is chosen, and of which figures."""
        best = self.best(at_once)
        figures = [f"plain {self.plain:,.0f}"]
        figures += [f"captured {self.captured:,.0f}"] if self.captured is not None else []
        figures += [f"{size} lanes {rate:,.0f}" for size, rate in self.lanes.items()]
        figures += [self.reason] if self.reason else []
        chosen = f"{best} a GPU" if best else "off"
        return f"lanes: {chosen} (samples/s of one GPU: {', '.join(figures)})"


@flushed_denormals()
def calibrate(
    values: dict[str, Any],
    sizes: Sequence[int] = SIZES,
    seconds: float = 1.0,
    dataset: Dataset | None = None,
) -> Calibration:
    """Time steps of a config on this process's device, alone and in stacks.

    Args:
        values: the config, as plain values.
        sizes: of the stacks, in rising order.
        seconds: for each figure, warm-up aside.
        dataset: what it trains on, if that is loaded.

    Raises:
        InputError: a config or data that will not do.
    """
    config = TrialConfig.from_dict(values)
    data, device = dataset or load_dataset(config.data), default_device()
    stack = _stack(config, 1, data, device)
    captured, reason = _rate(stack, seconds) if stack.runner is not None else None, ""
    if isinstance(stack.runner, CapturedStep) and stack.runner.failed is not None:
        captured, reason = None, stack.runner.failed
    stack.runner = None
    plain = _rate(stack, seconds)
    if stack.model.unstackable is not None:
        return Calibration(plain, captured, {}, f"no stacks: {stack.model.unstackable}")
    del stack
    lanes: dict[int, float] = {}
    for size in sizes:
        try:
            with told_out_of_memory(config):
                lanes[size] = _rate(_stack(config, size, data, device), seconds)
        except OutOfMemoryError:
            return Calibration(plain, captured, lanes, f"no memory for {size} lanes")
    return Calibration(plain, captured, lanes, reason)


def _stack(config: TrialConfig, size: int, dataset: Dataset, device: torch.device) -> Stack:
    """So many trials that differ in their seeds."""
    values = config.to_dict()
    trials = [TrialConfig.from_dict({**values, "seed": config.seed + i}) for i in range(size)]
    return Stack(trials, dataset, device, seed=False)


def _rate(stack: Stack, seconds: float) -> float:
    """Samples per second of all lanes together."""
    stack.advance(_WARM_UP)
    wait_for(stack.device)
    times: list[float] = []
    while sum(times) < seconds:
        started = time.perf_counter()
        stack.advance(_STEPS)
        wait_for(stack.device)
        times.append(time.perf_counter() - started)
    # The median, since steps that come up rarely are still captured in some.
    return _STEPS * stack.batch_size * len(stack.trials) / statistics.median(times)
