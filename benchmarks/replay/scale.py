"""How vqtune's early stopping carries a cluster: many workers, and very many trials.

    python -m benchmarks.replay.scale [--trials N] [--workers N] [--seed N]

Synthetic trials report to the scheduler of the space `full` on a simulated clock, in one process on
one core. Decisions are timed by themselves, memory is what the process grows by for each trial. How
the objectives go together decides how large the fronts of a rung are, so it is varied: correlations
are of costs, -0.9 being the conflict in which nearly every trial is on some front.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from rich.table import Table as Printed

from benchmarks.replay.simulator import Trial
from vqtune.scheduler import make_scheduler
from vqtune.spaces import load_space

CORRELATIONS = (0.9, 0.0, -0.9)
SAMPLES, REPORTS, CODES = 16_000, 16, 512
# How much a report tells of the end: the noise of a trial's first report, in standard deviations.
_NOISE = 0.5
_PAGE = 4096


@dataclass
class Measured:
    """What one correlation costs.

    Parameters
    ----------
    total : seconds of the whole simulation, drawing the reports included
    decisions : seconds of each call, [reports]
    memory : bytes that the process has grown by at each tenth of the trials, [10]
    completed : trials trained to their end

    """

    total: float
    decisions: np.ndarray
    memory: list[int]
    completed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console(highlight=False)
    title = f"{options.trials:,} trials on {options.workers:,} workers, one core"
    printed = Printed(title=title)
    columns = ("costs", "total", "reports", "median", "99%", "longest", "memory", "to the end")
    for column in columns:
        printed.add_column(column, justify="right")
    for correlation in CORRELATIONS:
        # Each in a fresh process, or one would grow into the memory that another has left.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            asked = (correlation, options.trials, options.workers, options.seed)
            found = pool.submit(simulate, *asked).result()
        printed.add_row(f"{correlation:+.1f}", *_cells(found, options.trials))
    console.print(printed)


def simulate(correlation: float, trials: int, workers: int, seed: int) -> Measured:
    """Run so many trials through one scheduler."""
    settings = load_space("full").search
    scheduler = make_scheduler(settings, SAMPLES)
    rng = np.random.default_rng(seed)
    costs = rng.multivariate_normal((0, 0), ((1, correlation), (correlation, 1)), trials)
    # Filled here, so that what comes after grows by what the scheduler keeps.
    decisions = np.full(trials * REPORTS, np.nan)
    speeds = rng.uniform(0.5, 2.0, trials)
    reports = completed = started = ended = 0
    events: list[tuple[float, int, Trial]] = []
    memory, before = [], resident()
    began = time.perf_counter()

    def start(now: float) -> None:
        nonlocal started
        if started < trials:
            role = "search" if started else "baseline"
            trial = Trial(f"t{started:06d}", {"trial_id": f"t{started:06d}", "role": role}, started)
            scheduler.on_trial_add(None, trial)
            heapq.heappush(events, (now + speeds[started], started, trial))
            started += 1

    for _ in range(workers):
        start(0.0)
    while events:
        now, row, trial = heapq.heappop(events)
        trial.reports += 1
        result = report(costs[row], trial.reports, rng)
        goes_on = False
        if trial.reports < REPORTS:
            asked = time.perf_counter()
            action = scheduler.on_trial_result(None, trial, result)
            decisions[reports] = time.perf_counter() - asked
            reports += 1
            goes_on = action != TrialScheduler.STOP
        if goes_on:
            heapq.heappush(events, (now + speeds[row], row, trial))
            continue
        scheduler.on_trial_complete(None, trial, result)
        completed += trial.reports == REPORTS
        ended += 1
        if ended * 10 % trials < 10:
            memory.append(resident() - before)
        start(now)
    return Measured(time.perf_counter() - began, decisions[:reports], memory, completed)


def report(cost: np.ndarray, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A report of a trial that ends at these two costs; the early ones are further off."""
    left = 1 - number / REPORTS
    reconstruction, collapse = cost + left * (1 + _NOISE * rng.standard_normal(2))
    usage = 1 / (1 + math.exp(collapse))
    return {
        "samples": SAMPLES * number // REPORTS,
        "recon_loss": 0.2 * math.exp(0.3 * reconstruction),
        "perplexity": usage * CODES,
        "usage": usage,
        "codes": CODES,
        "training_iteration": number,
    }


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _cells(found: Measured, trials: int) -> list[str]:
    median, high = np.quantile(found.decisions, (0.5, 0.99))
    ended = np.linspace(0.1, 1.0, len(found.memory)) * trials
    growth = np.polyfit(ended, found.memory, 1)[0]
    return [
        f"{found.total:.1f} s",
        f"{len(found.decisions):,}",
        f"{median * 1e6:.0f} µs",
        f"{high * 1e6:.0f} µs",
        f"{found.decisions.max() * 1e3:.1f} ms",
        f"{growth:.0f} B",
        f"{found.completed:,}",
    ]


if __name__ == "__main__":
    main()
