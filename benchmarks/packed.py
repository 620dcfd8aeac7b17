"""Plain trials side by side, each in a process with a share of a GPU, as Ray Tune runs them.

With NVIDIA's Multi-Process Service, where its daemon is installed, kernels of several processes
run at once. It is started in a folder of its own, and changes no setting of the card.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch

from benchmarks.bare_loop import BareTrial
from trainables.stack import wait_for


class Worker:
    """One plain trial."""

    def __init__(self, device: str, channels: int, width: int, depth: int) -> None:
        """Random data and weights; raises where the device is not to be had."""
        torch.set_num_threads(1)
        self.places = torch.randint(2000, (16,), device=device)
        values = torch.randn(4096, channels, device=device)
        self.trial = BareTrial(values, width=width, depth=depth, size=512, dim=64)
        self.run(0.5)  # libraries load and choose their algorithms

    def ready(self) -> None:
        """Answers once all is set up."""

    def run(self, seconds: float) -> float:
        """Steps a second over about so many seconds."""
        steps, started = 0, time.perf_counter()
        while time.perf_counter() < started + seconds:
            for _ in range(10):
                self.trial.step(self.places)
            wait_for(self.places.device)
            steps += 10
        return steps / (time.perf_counter() - started)


def packed(count: int, seconds: float, channels: int, width: int, depth: int) -> float:
    """Steps a second of all of so many plain trials at once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    share: dict[str, Any] = {"num_gpus": 1 / count} if device == "cuda" else {"num_cpus": 1}
    kind = ray.remote(**share)(Worker)
    workers = [kind.remote(device, channels, width, depth) for _ in range(count)]
    try:
        ray.get([worker.ready.remote() for worker in workers])
        return float(sum(ray.get([worker.run.remote(seconds) for worker in workers])))
    finally:
        for worker in workers:
            ray.kill(worker)


@contextmanager
def cluster(cpus: int, service: bool) -> Iterator[bool]:
    """A local Ray cluster, with the Multi-Process Service if asked; gives whether it is there."""
    daemon = shutil.which("nvidia-cuda-mps-control") if service else None
    if service and daemon is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        if daemon is not None:
            started = subprocess.run([daemon, "-d"], env={**os.environ, **variables}, check=False)
            if started.returncode:
                yield False
                return
        workers = {"env_vars": variables} if daemon is not None else {}
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=workers,
        )
        try:
            yield True
        finally:
            ray.shutdown()
            if daemon is not None:
                subprocess.run(
                    [daemon], input=b"quit\n", env={**os.environ, **variables}, check=False
                )
