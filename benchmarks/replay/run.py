"""Replay every contender on the recorded table, over many seeds, and say who needs what.

    python -m benchmarks.replay.run [--seeds N] [--workers N] [--only NAME,...] [--table DIR]
                                    [--out DIR] [--cap TRAININGS]

A run ends when it has the full front, when the table is used up, or at the cap. Its result is a
line of `replay.jsonl` under --out; the same command goes on where it was ended, and does again what
was done by other settings, another table, other versions or other code of vqtune's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.json_lines import read_lines
from benchmarks.replay.adapters import quiet
from benchmarks.replay.contenders import BY_NAME, CONTENDERS, Contender
from benchmarks.replay.record import recorded_space
from benchmarks.replay.report import summary
from benchmarks.replay.simulator import Outcome, replay
from benchmarks.replay.table import Table

HERE = Path(__file__).parent
RESULTS = "replay.jsonl"

Row = dict[str, Any]


def main() -> None:
    options = arguments()
    console = Console(highlight=False)
    names = [name for name in options.only.split(",") if name] or list(BY_NAME)
    if unknown := sorted(set(names) - set(BY_NAME)):
        raise SystemExit(f"--only: found {', '.join(unknown)}, allowed: {', '.join(BY_NAME)}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / RESULTS
    wanted = [(name, seed) for seed in range(options.seeds) for name in names]
    digests = {name: digest(BY_NAME[name], options) for name in names}
    done = {(row["contender"], row["seed"]) for row in current(file, digests)}
    left = [key for key in wanted if key not in done]
    if left:
        _run(left, digests, options, file, console)
    rows = [row for row in current(file, digests) if (row["contender"], row["seed"]) in wanted]
    labels = {contender.name: contender.label for contender in CONTENDERS}
    console.width = max(console.width, 106)  # wide enough where it is not a terminal
    console.print(summary(rows, labels))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=8, help="trials that run side by side")
    parser.add_argument("--only", default="", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--table", type=Path, default=HERE)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--cap", type=float, help="full trainings after which every run ends")
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side"
    )
    return parser.parse_args()


def digest(contender: Contender, options: argparse.Namespace) -> str:
    """Everything that a result depends on beside contender and seed."""
    parts: list[Any] = [options.workers, options.cap, recorded_space().to_dict()]
    read = [options.table / name for name in ("curves.parquet", "configs.parquet")]
    read += [HERE / f"{name}.py" for name in ("adapters", "contenders", "simulator", "table")]
    for part in contender.decides:
        if isinstance(part, str):
            parts.append(f"{part} {version(part)}")
        else:
            read.append(Path(str(part.__file__)))
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in read]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def current(file: Path, digests: dict[str, str]) -> Iterator[Row]:
    """Results in the file that still hold."""
    return (row for row in read_lines(file) if row["digest"] == digests.get(row["contender"]))


def _run(
    left: list[tuple[str, int]],
    digests: dict[str, str],
    options: argparse.Namespace,
    file: Path,
    console: Console,
) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(options.processes, spawn, _open_table, (options.table,)) as pool,
        file.open("a", encoding="utf-8") as out,
    ):
        futures = {
            pool.submit(one, name, seed, options.workers, options.cap): name for name, seed in left
        }
        for future in track(as_completed(futures), total=len(futures), console=console):
            row = future.result() | {"digest": digests[futures[future]]}
            out.write(json.dumps(row) + "\n")
            out.flush()


_opened: list[Table] = []


def _open_table(folder: Path) -> None:
    quiet()
    _opened.append(Table.read(folder, recorded_space()))


def one(name: str, seed: int, workers: int, cap: float | None) -> Row:
    """Replay one contender with one seed on the table that this process has open."""
    [table] = _opened
    # Some classes draw from the generators that all share.
    random.seed(seed)
    np.random.seed(seed)
    began = time.process_time()
    search, scheduler = BY_NAME[name].make(table, seed)
    outcome = replay(table, search, scheduler, workers, cap)
    return {"contender": name, "seed": seed, **facts(table, outcome)} | {
        "took": round(time.process_time() - began, 2)
    }


def facts(table: Table, outcome: Outcome) -> Row:
    """What is kept of a run; `steps` are the points at which its front grew, (compute, share)."""
    steps: list[tuple[float, float]] = []
    for spent, share in zip(outcome.compute, outcome.share, strict=True):
        if not steps or share > steps[-1][1]:
            steps.append((round(spent, 3), round(share, 6)))
    growing = set(table.growing())
    ended = [*outcome.completed, *outcome.stopped, *outcome.diverged]
    return {
        "steps": steps,
        "compute": round(outcome.samples / table.budget, 3),
        "clock": round(outcome.clock, 1),
        "completed": len(outcome.completed),
        "stopped": len(outcome.stopped),
        "diverged": len(outcome.diverged),
        "growing": len(growing & set(ended)),
        "grown": len(growing & set(outcome.completed)),
    }


if __name__ == "__main__":
    main()
