"""What a trial costs above its own training steps, and what a step costs above a bare loop.

    python -m benchmarks.overhead [--trials N] [--rounds N] [--steps N] [--tracked N]

First a search of many trials of a few steps each: wall-clock from the first trial's start to the
last one's end, times the trials that run side by side, less the seconds that the trials spent in
their own steps and evaluations, by trial. Then the trainer's steps against a hand-written loop of
the same arithmetic, in turn, on one thread. Last what tracking adds to a trial, of which
benchmarks/tracking_overhead.py tells.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from analysis.records import read_run
from benchmarks.bare_loop import BareTrial
from benchmarks.timing import interleaved, median_ratio
from benchmarks.tracking_overhead import compare
from trainables.config import TrialConfig
from trainables.data import load_dataset
from trainables.stack import Stack, wait_for
from vqtune.search import Request, search

SPACE = {
    "description": "Trials of a few steps",
    "search": {"early_stopping": "none", "sampler": "random"},
    "parameters": {
        "data": {"kind": "digits"},
        "model": {"width": 8, "depth": 1},
        "codebook": {
            "size": 16,
            "dim": 4,
            "update": {"kind": "ema", "decay": {"min": 0.9, "max": 0.99}},
        },
        "training": {"samples": 64, "batch_size": 16, "reports": 2},
        "evaluation": {"latents": 800},
    },
}


def trial_overhead(trials: int, console: Console) -> None:
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "few_steps.yaml"
        space.write_text(yaml.safe_dump(SPACE))
        quiet = Console(quiet=True)
        started = time.time()
        outcome = search(
            Request(space=str(space), trials=trials, storage=Path(folder) / "runs", name="x"), quiet
        )
        ended = time.time()
        records = read_run(outcome.run.path)
        folders = [outcome.run.trial(t) for t in records.trials["trial_id"]]
        first = min((place / "params.json").stat().st_mtime for place in folders)
        last = max((place / "result.json").stat().st_mtime for place in folders)
        own = float(records.trials["seconds"].sum())
    slots = len(os.sched_getaffinity(0))  # one trial a CPU
    wall = last - first
    each = (wall * slots - own) / trials
    table = Table("part", "seconds")
    table.add_row(f"wall, first start to last report, {trials} trials", f"{wall:.2f}")
    table.add_row("wall a trial", f"{wall / trials:.3f}")
    table.add_row(f"above its own steps a trial (of {slots} slots)", f"{each:.3f}")
    around = ended - started - wall
    table.add_row("before the first trial (Ray, data) and after the last", f"{around:.2f}")
    console.print(table)


def step_overhead(rounds: int, steps: int, console: Console) -> None:
    torch.set_num_threads(1)
    config = TrialConfig.from_dict({"codebook": {"update": {"kind": "ema"}}})
    dataset = load_dataset(config.data)
    stack = Stack([config], dataset)
    values = torch.as_tensor(dataset.train.values.copy(), device=stack.device)
    bare = BareTrial(values, width=128, depth=2, size=512, dim=64)
    starts = torch.as_tensor(dataset.train.starts.copy(), device=stack.device)
    places = starts[torch.randint(len(starts), (16,))]

    def ours() -> None:
        stack.advance(steps)
        wait_for(stack.device)

    def arithmetic() -> None:
        for _ in range(steps):
            stack.step(stack.feed.batch(places.unsqueeze(0)))
        wait_for(stack.device)

    def theirs() -> None:
        for _ in range(steps):
            bare.step(places)
        wait_for(stack.device)

    contenders = {"trainer": ours, "trainer, same batch": arithmetic, "bare loop": theirs}
    seconds = interleaved(contenders, rounds)
    table = Table("loop", "ms a step", "against the bare loop")
    for name, values in seconds.items():
        ratio = 1 / median_ratio(values, seconds["bare loop"])
        table.add_row(name, f"{1e3 * statistics.median(values) / steps:.3f}", f"{ratio:.3f}")
    console.print(f"default trial (K=512, d=64, batch 16 x 32) on {stack.device.type}, 1 thread")
    console.print(table)
    ms = {name: 1e3 * statistics.median(values) / steps for name, values in seconds.items()}
    console.print(
        "Where the trainer's rest goes: "
        f"{ms['trainer'] - ms['trainer, same batch']:+.3f} ms drawing the order of examples, "
        f"{ms['trainer, same batch'] - ms['bare loop']:+.3f} ms lanes, sums of the losses, "
        "the check for divergence."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tracked", type=int, default=30)
    options = parser.parse_args()
    console = Console(width=100)
    trial_overhead(options.trials, console)
    step_overhead(options.rounds, options.steps, console)
    compare(options.tracked, 3, console)


if __name__ == "__main__":
    main()
