"""What the results of a replay say, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table as Printed

GOAL = 0.97
RANDOM = "random"

Row = dict[str, Any]


def reached(row: Row, goal: float = GOAL) -> float:
    """Full trainings spent when the run had this share of the hypervolume; infinite if never."""
    return next((spent for spent, share in row["steps"] if share >= goal), math.inf)


def quantile(values: Sequence[float], q: float) -> float:
    """Linear between neighbours; of values that may be infinite."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below if below == above else below + (above - below) * (place % 1)


def summary(rows: Sequence[Row], labels: Mapping[str, str]) -> Printed:
    """One row a contender that has results, in the order of `labels`.

    `there` is the share of runs that reached the goal, `share` the median at the end of a run, and
    `growing kept` says of the trials that grow their codebook and belong to the full front how many
    of those proposed were trained to their end.
    """
    by_name = {name: [row for row in rows if row["contender"] == name] for name in labels}
    against = [reached(row) for row in by_name.get(RANDOM, [])]
    yardstick = quantile(against, 0.5) if against else math.nan
    printed = Printed(title=f"Compute to {GOAL:.0%} of the full front's hypervolume")
    printed.add_column("contender", no_wrap=True)
    for column in ("trainings", "quartiles", "x random", "there", "share", "growing kept"):
        printed.add_column(column, justify="right", no_wrap=True)
    for name, label in labels.items():
        if by_name[name]:
            printed.add_row(label, *_cells(by_name[name], yardstick))
    return printed


def _cells(rows: Sequence[Row], yardstick: float) -> list[str]:
    spent = [reached(row) for row in rows]
    middle = quantile(spent, 0.5)
    there = sum(map(math.isfinite, spent))
    growing, grown = (sum(row[key] for row in rows) for key in ("growing", "grown"))
    best = quantile([row["steps"][-1][1] if row["steps"] else 0.0 for row in rows], 0.5)
    return [
        _number(middle),
        f"{_number(quantile(spent, 0.25))}-{_number(quantile(spent, 0.75))}",
        f"{middle / yardstick:.2f}" if math.isfinite(middle / yardstick) else "-",
        f"{there}/{len(rows)}",
        f"{best:.3f}",
        f"{grown}/{growing}" if growing else "-",
    ]


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "never"
