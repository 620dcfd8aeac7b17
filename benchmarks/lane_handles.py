"""What a trial in a lane costs beside its training: memory of two processes, time of a report.

    python -m benchmarks.lane_handles [--trials N] [--reports N]

First trials of one signature join a pool, without Tune: how much private memory each adds to the
process that trains, its tensors among it, and to the one that asks, against that of the process
that a trial would have for itself. Then some are asked for reports, one after the other: the time
from asking to the report, less the trial's steps and evaluation. Writing the checkpoint is in it.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from benchmarks.overhead import SPACE
from trainables.config import TrialConfig
from trainables.tune_trainable import VQTrial
from vqtune.cluster import Resources, ray_cluster
from vqtune.lanes import Lane, Pools

TAKEN = Resources(1, 0, 1)
MB = 1024  # in kB, as Linux counts


def private(pid: int | str = "self") -> float:
    """Memory in MB that a process shares with no other."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"Private_\w+: +(\d+) kB", told))) / MB


def config_of(number: int, reports: int, folder: Path) -> dict[str, Any]:
    parameters = {**SPACE["parameters"], "seed": number}
    parameters["codebook"] = {**parameters["codebook"], "update": {"kind": "ema"}}
    parameters["training"] = {"samples": 64 * reports, "batch_size": 16, "reports": reports}
    return {
        "trial_id": f"t{number:04d}",
        "role": "search",
        "trial": TrialConfig.from_dict(parameters).to_dict(),
        "folder": str(folder / f"t{number:04d}"),
        "threads": 1,
        "gpus": 0.0,
    }


def of_its_own(reports: int, folder: Path) -> tuple[float, float]:
    """MB of a process with one trial, and ms a report beside training."""
    actor = ray.remote(VQTrial).options(num_cpus=1).remote(config=config_of(9999, reports, folder))
    times, pid = _times(actor.train.remote, reports)
    memory = private(pid)
    ray.kill(actor)
    return memory, times


def in_lanes(trials: int, reports: int, folder: Path) -> tuple[float, float, float, float]:
    """MB of the pool's process, MB that a trial adds to it and to this one, and ms a report."""
    pools = Pools(TAKEN, 128)
    while not pools.free():
        time.sleep(0.1)
    make = partial(Lane, pools, deaths=lambda: 0)

    def joined(number: int) -> Lane:
        lane = make(config_of(number, reports, folder))
        ray.get(lane.join())
        return lane

    # The first brings what all need, such as the data.
    pid = ray.get(joined(0).report())["pid"]
    pool, driver = private(pid), private()
    more = [joined(1 + number) for number in range(trials)]
    ray.get([lane.report() for lane in more])
    added = (private(pid) - pool) / trials, (private() - driver) / trials
    times = statistics.median(_times(lane.report, reports - 1)[0] for lane in more[:16])
    pools.close()
    return pool, *added, times


def _times(ask: Any, reports: int) -> tuple[float, int]:
    """Median ms of a report beside its training, and the process that made it."""
    spent, before, pid = [], None, 0
    for _ in range(reports):
        started = time.perf_counter()
        report = ray.get(ask())
        wall = time.perf_counter() - started
        if before is not None:
            spent.append(1e3 * (wall - (report["seconds"] - before)))
        before, pid = report["seconds"], report["pid"]
    return statistics.median(spent), pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=63)
    parser.add_argument("--reports", type=int, default=12)
    options = parser.parse_args()
    console = Console(width=110)
    with ray_cluster(None), tempfile.TemporaryDirectory() as folder:
        own, own_ms = of_its_own(options.reports, Path(folder))
        pool, adds, driver, ms = in_lanes(options.trials, options.reports, Path(folder))
    table = Table("a trial", "MB where it trains", "MB where it is asked", "ms a report")
    table.add_row("in a lane", f"{adds:.1f}", f"{driver:.2f}", f"{ms:.1f}")
    table.add_row("in a process of its own", f"{own:.0f}", "", f"{own_ms:.1f}")
    console.print(table)
    console.print(f"A pool's process with one trial has {pool:.0f} MB of its own.")


if __name__ == "__main__":
    main()
