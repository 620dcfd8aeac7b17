"""What tracking costs a trial: none, TensorBoard's files, ours for W&B, and Ray's own for W&B.

    python -m benchmarks.tracking_overhead [--trials N] [--rounds N]

Searches of small trials, each kind of tracking once a round. W&B is offline. The data are sound, so
ours makes pictures at each report and sound at the end of each trial; Ray's logs numbers only. The
steady figure is from the end of the first trials, in which processes start and import what they
need, until everything is written, by trial; what a kind costs is the difference of medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune import Callback
from rich.console import Console
from rich.table import Table

import vqtune.search
import vqtune.tuning
from analysis.records import read_run
from vqtune.search import Request, search

SPACE = {
    "description": "Trials of a few steps on sound",
    "search": {"early_stopping": "none", "sampler": "random"},
    "parameters": {
        "data": {"kind": "synthetic", "files": 24, "seconds": 3.0},
        "model": {"width": 8, "depth": 1},
        "codebook": {
            "size": 64,
            "dim": 4,
            "update": {"kind": "ema", "decay": {"min": 0.9, "max": 0.99}},
        },
        "training": {"samples": 320, "batch_size": 16, "reports": 4},
        "evaluation": {"latents": 3200},
    },
}


class Nothing(Callback):  # type: ignore[misc]
    """Tracks nothing."""

    def __init__(self, *arguments: Any) -> None:
        """Take what TensorBoard takes."""

    def close(self) -> None:
        """Nothing is left."""


class Stock(WandbLoggerCallback):  # type: ignore[misc]
    """Ray's own, which waits for its actors when Tune ends."""

    def close(self) -> None:
        """Nothing is left."""


@contextmanager
def untracked() -> Iterator[None]:
    with patch.object(vqtune.tuning, "TensorBoard", Nothing):
        yield


@contextmanager
def stock() -> Iterator[None]:
    def tracker(*_: Any) -> Stock:
        return Stock(project="vq", mode="offline")

    with untracked(), patch.object(vqtune.search, "_tracker", tracker):
        yield


@contextmanager
def ours() -> Iterator[None]:
    with untracked():
        yield


KINDS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "no tracking": (untracked, None),
    "TensorBoard, ours (always)": (ExitStack, None),
    "W&B, ours": (ours, "vq"),
    "W&B, Ray's callback": (stock, None),
}


def seconds(kind: str, trials: int, warm: int) -> tuple[float, float]:
    """Of a search by trial: all of it but for Ray's start, and after so many trials."""
    surroundings, project = KINDS[kind]
    span: list[float] = []
    tune = vqtune.search._tune

    def timed(*arguments: Any) -> bool:
        span.append(time.time())
        finished = tune(*arguments)
        span.append(time.time())
        return finished

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        surroundings(),
        patch.object(vqtune.search, "_tune", timed),
    ):
        space = Path(folder) / "few_steps.yaml"
        space.write_text(yaml.safe_dump(SPACE))
        request = Request(
            space=str(space), trials=trials, storage=Path(folder) / "runs", name="x", wandb=project
        )
        run = search(request, Console(quiet=True)).run
        last = read_run(run.path).reports.groupby("trial_id")["timestamp"].max()
    begun, ended = span
    return (ended - begun) / trials, (ended - sorted(last)[warm - 1]) / (trials - warm)


def compare(trials: int, rounds: int, console: Console) -> None:
    os.environ["WANDB_MODE"] = "offline"
    slots = len(os.sched_getaffinity(0))  # one trial a CPU
    whole: dict[str, list[float]] = {kind: [] for kind in KINDS}
    steady: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            each, after = seconds(kind, trials, 2 * slots)
            whole[kind].append(each)
            steady[kind].append(after)
            console.print(f"{kind}: {after:.3f} s a trial, {each:.3f} in all", style="dim")
    table = Table("tracking", "s a trial", "above none", "with the start", "above none")
    for kind in KINDS:
        cells = []
        for found in (steady, whole):
            median = statistics.median(found[kind])
            cells += [f"{median:.3f}", f"{median - statistics.median(found['no tracking']):+.3f}"]
        table.add_row(kind, *cells)
    console.print(f"{trials} trials of 4 reports, {slots} CPUs, {rounds} rounds, medians")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    compare(options.trials, options.rounds, Console(width=100))


if __name__ == "__main__":
    main()
