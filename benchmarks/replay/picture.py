"""Draw the results of a replay: hypervolume over compute, the median and quartiles of all seeds.

python -m benchmarks.replay.picture [--results FILE] [--out FILE]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from benchmarks.json_lines import read_lines
from benchmarks.replay.contenders import CONTENDERS
from benchmarks.replay.report import GOAL, RANDOM, quantile, reached

HERE = Path(__file__).parent
# Ours in colour and first; early stopping dashed in the others, who keep one colour a library.
STYLES = {
    "vqtune": ("#0b5fa5", "-", 2.6),
    "vqtune-random": ("#56a0dc", "-", 1.8),
    "random": ("#333333", "-", 1.6),
    "ray": ("#d1711f", "-", 1.3),
    "ray-asha": ("#d1711f", "--", 1.3),
    "ray-asha-random": ("#e5ac78", "--", 1.3),
    "optuna-tpe": ("#3a8f4d", "-", 1.3),
    "optuna-nsga2": ("#93c79c", "-", 1.3),
    "moasha": ("#a1459b", "--", 1.3),
}

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "replay.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "replay.png")
    options = parser.parse_args()
    # What was done again stands further down.
    latest = {(row["contender"], row["seed"]): row for row in read_lines(options.results)}
    draw(list(latest.values()), options.out)


def draw(rows: Sequence[Row], out: Path) -> None:
    """Write the picture."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415

    end = shown(rows)
    spent = np.linspace(0.0, end, 600)
    figure, axes = plt.subplots(figsize=(9, 4.8), dpi=110)
    for contender in CONTENDERS:
        runs = [row for row in rows if row["contender"] == contender.name]
        if not runs:
            continue
        low, middle, high = np.quantile([shares(row, spent) for row in runs], (0.25, 0.5, 0.75), 0)
        color, line, width = STYLES[contender.name]
        ours = contender.name.startswith("vqtune")
        axes.fill_between(spent, low, high, color=color, alpha=0.16 if ours else 0.07, linewidth=0)
        axes.plot(
            spent,
            middle,
            color=color,
            linestyle=line,
            linewidth=width,
            label=contender.label,
            zorder=3 if ours else 2,
        )
    axes.axhline(GOAL, color="#999999", linewidth=0.8, linestyle=":")
    axes.annotate(f"{GOAL:.0%}", (end, GOAL), (4, 0), textcoords="offset points", va="center")
    axes.set(xlim=(0, end), ylim=(0.5, 1.005), xlabel="compute, in full trainings")
    axes.set_ylabel("hypervolume, of the full front's")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize="small", framealpha=0.9)
    figure.tight_layout()
    figure.savefig(out)
    plt.close(figure)


def shown(rows: Sequence[Row]) -> float:
    """How much compute the picture spans: until three in four of the random runs are there."""
    yardstick = [reached(row) for row in rows if row["contender"] == RANDOM]
    end = quantile(yardstick, 0.75) if yardstick else math.inf
    return end if math.isfinite(end) else max(row["compute"] for row in rows)


def shares(row: Row, spent: Floats) -> Floats:
    """The share that a run had at each compute spent; after its end, what it ended with."""
    at, share = zip((0.0, 0.0), *row["steps"], strict=True)
    return np.asarray(share)[np.searchsorted(at, spent, side="right") - 1]


if __name__ == "__main__":
    main()
