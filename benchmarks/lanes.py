"""Trials in lanes of one stack against plain trials: steps a second of all trials together.

    python -m benchmarks.lanes [--rounds N] [--seconds S] [--lanes 1,4,16,64,128]

For three sizes of the model, in one run: (a) one plain process, as one writes a trial in PyTorch;
(b) plain processes side by side, each on a share of the device, at the best of several counts,
without and with NVIDIA's Multi-Process Service; (c) one trial whose step is captured as a CUDA
graph; and stacks of so many lanes. (a), (c) and the stacks take turns. "of the limit" is the share
of what the device could do at the rates measured here of arithmetic and of copying, whichever is
less. Without a GPU it runs small on the CPU, where nothing is captured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import ray
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bare_loop import BareTrial
from benchmarks.limits import rates, work_of
from benchmarks.packed import cluster, packed
from benchmarks.timing import interleaved
from trainables.config import TrialConfig
from trainables.data import Dataset, load_dataset
from trainables.stack import Stack, default_device, wait_for

# Width and residual blocks; the middle one is the default model.
MODELS = {"small": (64, 1), "default": (128, 2), "large": (256, 4)}


@dataclass
class Row:
    """A contender: its trials at once, and how many steps of one trial it does in a second."""

    name: str
    rate: float
    memory: float | None = None  # bytes a trial
    limit: float | None = None


def config(width: int, depth: int) -> TrialConfig:
    return TrialConfig.from_dict(
        {
            "model": {"width": width, "depth": depth},
            "codebook": {"update": {"kind": "ema"}},
            "training": {"samples": 10**9},
        }
    )


def stacks(
    width: int, depth: int, sizes: list[int], seconds: float, rounds: int, dataset: Dataset
) -> list[Row]:
    """(a), (c) and the stacks, interleaved."""
    device = default_device()
    torch.set_num_threads(1)
    works: dict[str, Callable[[], None]] = {}
    memory: dict[str, float] = {}
    counts: dict[str, int] = {}
    values = torch.as_tensor(dataset.train.values.copy(), device=device)
    bare = BareTrial(values, width=width, depth=depth, size=512, dim=64)
    places = torch.as_tensor(dataset.train.starts[:16].copy(), device=device)
    slowest = _seconds(lambda: bare.step(places), device)
    steps = max(1, round(seconds / slowest))
    plain = "(a) one plain process"

    def by_hand() -> None:
        for _ in range(steps):
            bare.step(places)
        wait_for(device)

    works[plain], counts[plain] = by_hand, steps
    trial = config(width, depth)
    alone = Stack([trial], dataset, device)  # with the data, which all share
    alone.runner = None
    alone.advance(2)
    for size in sizes:
        before = _taken(device)
        stack = Stack([trial.model_copy(update={"seed": i}) for i in range(size)], dataset, device)
        stack.advance(8)
        name = f"{size} lanes" if size > 1 else "(c) one trial, captured"
        if size == 1 and device.type == "cpu":
            name = "one trial"
        each = max(1, round(seconds / _seconds(lambda s=stack: s.advance(4), device) * 4))
        works[name] = lambda s=stack, n=each: (s.advance(n), wait_for(device))[1]
        counts[name] = each * size
        memory[name] = (_taken(device) - before) / size
        failed = getattr(stack.runner, "failed", None)
        if failed:
            raise SystemExit(f"{name}: {failed}")
    timed = interleaved(works, rounds)
    flops, moved = work_of(lambda: alone.advance(1))
    arithmetic, copying = rates(device)
    most = min(arithmetic / flops, copying / moved)
    return [
        Row(name, counts[name] / statistics.median(timed[name]), memory.get(name), most)
        for name in works
    ]


def side_by_side(width: int, depth: int, seconds: float, channels: int) -> list[Row]:
    """(b), at the best count of processes."""
    found = []
    cpus = len(os.sched_getaffinity(0))
    counts = [n for n in (1, 2, 4, 8, 16) if n <= cpus]
    for service in (False, True) if torch.cuda.is_available() else (False,):
        with cluster(cpus, service) as there:
            if not there:
                continue
            try:
                best = max((packed(n, seconds, channels, width, depth), n) for n in counts)
            except ray.exceptions.RayError:
                if not service:
                    raise
                continue  # a daemon that runs, but serves nobody
            extra = ", with MPS" if service else ""
            found.append(Row(f"(b) {best[1]} plain processes{extra}", best[0]))
    return found


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        work()
    wait_for(device)
    started = time.perf_counter()
    for _ in range(5):
        work()
    wait_for(device)
    return (time.perf_counter() - started) / 5


def _taken(device: torch.device) -> int:
    """Bytes of the device, those among them that belong to graphs."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--lanes")
    options = parser.parse_args()
    console, cuda = Console(width=110), torch.cuda.is_available()
    sizes = [int(n) for n in (options.lanes or ("1,4,16,64,128" if cuda else "1,4,16")).split(",")]
    models = MODELS if cuda else {"small": MODELS["small"]}
    if cuda:
        console.print(torch.cuda.get_device_name(), highlight=False)
    else:
        console.print("no GPU: a small run on the CPU, one thread a process", highlight=False)
    dataset = load_dataset(config(*MODELS["default"]).data)
    for name, (width, depth) in models.items():
        rows = side_by_side(width, depth, options.seconds, dataset.example_shape[0])
        rows += stacks(width, depth, sizes, options.seconds, options.rounds, dataset)
        plain = next(row.rate for row in rows if row.name.startswith("(a)"))
        packed_best = max((row.rate for row in rows if row.name.startswith("(b)")), default=0.0)
        table = Table(
            f"{name}: width {width}, {depth} blocks",
            "trial-steps/s",
            "of (a)",
            "of the best (b)",
            "MB a lane",
            "of the limit",
        )
        for row in rows:
            table.add_row(
                row.name,
                f"{row.rate:,.0f}",
                f"{row.rate / plain:.2f}",
                f"{row.rate / packed_best:.2f}" if packed_best else "",
                f"{row.memory / 1e6:.1f}" if row.memory else "",
                f"{row.rate / row.limit:.1%}" if row.limit else "",
            )
        console.print(table)


if __name__ == "__main__":
    main()
