"""Front, ranks and hypervolume of a million trials on one core.

    taskset -c 0 python -m benchmarks.ranking [--trials N] [--rounds N]

Two objectives, one up and one down, whose normal values agree (0.9: few trials are on a front),
know nothing of each other (0) or are traded for one another (-0.9: many are). `sum` is what a user
waits for: the front, the ranks of all fronts, not of ten only, and the hypervolume. `order` is what
the ranking adds for its first front: positions by hypervolume, contributions and the knee.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from analysis.front import Direction, hypervolume, nondominated, pareto_ranks
from analysis.placement import contributions, greedy, knee, scaled
from benchmarks.timing import interleaved

WAYS: list[Direction] = ["max", "min"]
FRONTS = 10


def values(trials: int, agree: float) -> npt.NDArray[np.float64]:
    """Perplexity and loss [trials, 2] whose goodness correlates by `agree`."""
    drawn = np.random.default_rng(0).multivariate_normal(
        [0, 0], [[1, agree], [agree, 1]], size=trials, method="cholesky"
    )
    return drawn * [1, -1]


def place(points: npt.NDArray[np.float64], on: npt.NDArray[np.bool_]) -> None:
    front = points[on] * [1, -1]
    shares = scaled(front, front, None)
    greedy(shares)
    contributions(shares)
    knee(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    steps = ("front", "all ranks", "hypervolume", "sum", "order")
    head = ("objectives agree", "on the front", f"in {FRONTS} fronts", "fronts", *steps)
    table = Table(*head, title=f"{options.trials:,} trials, seconds, best of {options.rounds}")
    for agree in (0.9, 0.0, -0.9):
        points = values(options.trials, agree)
        on, ranks = nondominated(points, WAYS), pareto_ranks(points, WAYS)
        worst = [points[:, 0].min(), points[:, 1].max()]
        work = {
            "front": lambda p=points: nondominated(p, WAYS),
            "all ranks": lambda p=points: pareto_ranks(p, WAYS),
            "hypervolume": lambda p=points, w=worst: hypervolume(p, WAYS, w),
            "order": lambda p=points, on=on: place(p, on),
        }
        seconds = {k: min(v) for k, v in interleaved(work, options.rounds, warmup=1).items()}
        seconds["sum"] = seconds["front"] + seconds["all ranks"] + seconds["hypervolume"]
        counts = (int(on.sum()), int((ranks < FRONTS).sum()), int(ranks.max()) + 1)
        table.add_row(
            f"{agree:g}", *(f"{n:,}" for n in counts), *(f"{seconds[k]:.3f}" for k in steps)
        )
    Console().print(table)
    print(f"{len(os.sched_getaffinity(0))} CPU(s)")


if __name__ == "__main__":
    main()
