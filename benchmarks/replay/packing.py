"""What it costs to propose trials that pack, and how much fuller the stacks get.

    python -m benchmarks.replay.packing [--seeds N] [--workers N ...] [--lanes N]
                                        [--table DIR] [--out DIR] [--processes N]

vqtune's search with the sampler free, and with `vqtune.packing`, on two tables: `recorded`, until
the front has 97% of the full one's hypervolume; and `predicted`, where trials of the same shapes
have curves of their own, for a fixed compute. 512 random configs have 461 signatures, so what the
recorded table answers with does not pack: stacks are counted by the signatures that were proposed.
A result is a line of `packing.jsonl` under --out, and is not computed again.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table as Printed

from benchmarks.json_lines import read_lines
from benchmarks.replay.adapters import VQTuneSearch, quiet
from benchmarks.replay.contenders import searched, vqtune_scheduler, vqtune_search
from benchmarks.replay.predicted import Predicted
from benchmarks.replay.record import REPORTS, recorded_space
from benchmarks.replay.report import GOAL, quantile
from benchmarks.replay.simulator import Proposal, replay
from benchmarks.replay.table import Table
from trainables.config import TrialConfig
from vqtune.packing import PACKED
from vqtune.searcher import VQSearch

HERE = Path(__file__).parent
RESULTS = "packing.jsonl"
# Full trainings after which a run on predicted curves ends; on the recorded ones the longest of 20
# plain runs needs fewer.
CAP = {"recorded": 120.0, "predicted": 40.0}
MODES = ("free", "packed")

Row = dict[str, Any]


def main() -> None:
    options = arguments()
    console = Console(highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / RESULTS
    wanted = [
        (kind, mode, seed, workers, options.lanes)
        for seed in range(options.seeds)
        for workers in options.workers
        for kind in CAP
        for mode in MODES
    ]
    done = {_key(row) for row in read_lines(file)}
    left = [key for key in wanted if key not in done]
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(options.processes, get_context("spawn"), _open, (options.table,))
    with pool, file.open("a", encoding="utf-8") as out:
        futures = [pool.submit(one, *key) for key in left]
        for future in track(as_completed(futures), total=len(left), console=console):
            out.write(json.dumps(future.result()) + "\n")
            out.flush()
    console.width = max(console.width, 106)  # wide enough where it is not a terminal
    console.print(summary([row for row in read_lines(file) if _key(row) in wanted]))
    perplexity, recon_loss = Predicted.read(options.table, recorded_space()).fit()
    console.print(
        f"predicted curves: R² {perplexity:.2f} of log perplexity, {recon_loss:.2f} of log "
        "recon_loss on configs left out"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--lanes", type=int, default=8, help="the most of a stack")
    parser.add_argument("--table", type=Path, default=HERE)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side"
    )
    return parser.parse_args()


def _key(row: Row) -> tuple[str, str, int, int, int]:
    return row["kind"], row["mode"], row["seed"], row["workers"], row["lanes"]


def summary(rows: Sequence[Row]) -> Printed:
    """Medians over the seeds, and quartiles.

    `trainings` are those until the goal, `share` that of the full front's hypervolume at the end,
    `lanes` the trials of a stack, and `stacks` what all stacks have trained by the end of a run, in
    full trainings: what a run costs where a stack takes no longer than a trial.
    """
    printed = Printed(title=f"vqtune with a free sampler, and packed: {GOAL:.0%} of the front")
    printed.add_column("curves", no_wrap=True)
    columns = ("workers", "search", "trainings", "quartiles", "there", "share", "quartiles")
    for column in (*columns, "lanes", "stacks"):
        printed.add_column(column, justify="right", no_wrap=True)
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["workers"], row["mode"]), []).append(row)
    for (kind, workers, mode), group in sorted(groups.items(), key=lambda item: _place(*item[0])):
        printed.add_row(kind, str(workers), mode, *_cells(group))
    return printed


def _place(kind: str, workers: int, mode: str) -> tuple[int, int, int]:
    return list(CAP).index(kind), workers, MODES.index(mode)


def _cells(rows: Sequence[Row]) -> list[str]:
    spent = [math.inf if row["reached"] is None else row["reached"] for row in rows]
    shares = [row["share"] for row in rows]
    lanes = [row["trial_reports"] / row["stack_reports"] for row in rows]
    stacks = [row["stack_reports"] / REPORTS for row in rows]
    return [
        *_middle(spent, ".1f"),
        f"{sum(map(math.isfinite, spent))}/{len(rows)}",
        *_middle(shares, ".3f"),
        _middle(lanes, ".2f")[0],
        _middle(stacks, ".1f")[0],
    ]


def _middle(values: Sequence[float], form: str) -> tuple[str, str]:
    quartiles = (quantile(values, q) for q in (0.25, 0.5, 0.75))
    low, middle, high = (format(v, form) if math.isfinite(v) else "never" for v in quartiles)
    return middle, f"{low}-{high}"


_opened: dict[str, Table] = {}


def _open(folder: Path) -> None:
    quiet()
    space = recorded_space()
    _opened.update(recorded=Towards.read(folder, space), predicted=Predicted.read(folder, space))


class Towards(Table):
    """The recorded table, its full front taken to be 97% as large: there a run ends."""

    @functools.cached_property
    def _all(self) -> float:
        return GOAL * super().full

    @property
    def full(self) -> float:  # type: ignore[override]
        """The hypervolume at which a run ends."""
        return self._all


class Stacks(VQTuneSearch):
    """vqtune's searcher, and the stacks that its trials would train in.

    Args:
        lanes: of a stack.
    """

    def __init__(self, lanes: int) -> None:
        """With no searcher yet: it asks for the lanes that are free."""
        self._lanes = lanes
        self._running: dict[str, str] = {}
        self.trial_reports, self.stack_reports = 0, 0.0

    def serve(self, searcher: VQSearch) -> None:
        """Pass calls on to it."""
        super().__init__(searcher)

    def free(self) -> dict[str, int]:
        """Lanes that are free in the stacks that run, by signature."""
        return {name: -n % self._lanes for name, n in Counter(self._running.values()).items()}

    def suggest(self, trial_id: str) -> Proposal | None:
        """Its next trial, in a stack of its signature."""
        proposal = super().suggest(trial_id)
        if proposal is not None:
            config = TrialConfig.from_dict(proposal.config["trial"])
            self._running[trial_id] = config.signature()
        return proposal

    def on_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Count, and tell it."""
        self._count(trial_id)
        super().on_result(trial_id, result)

    def on_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """Count, tell it, and leave the lane."""
        self._count(trial_id)
        super().on_complete(trial_id, result)
        del self._running[trial_id]

    def _count(self, trial_id: str) -> None:
        """A report is a share of what its stacks report together: one of them for all lanes."""
        trials = Counter(self._running.values())[self._running[trial_id]]
        self.trial_reports += 1
        self.stack_reports += -(-trials // self._lanes) / trials


def one(kind: str, mode: str, seed: int, workers: int, lanes: int) -> Row:
    """Replay one search on a table that this process has open."""
    table = _opened[kind]
    if isinstance(table, Predicted):
        table.begin()
    began = time.process_time()
    space = searched(table)
    stacks = Stacks(lanes)
    searcher = vqtune_search(space, seed, stacks.free if mode == "packed" else None)
    stacks.serve(searcher)
    scheduler = vqtune_scheduler(space, table, seed)
    outcome = replay(table, stacks, scheduler, workers, CAP[kind])
    spent = [c for c, share in zip(outcome.compute, outcome.share, strict=True) if share >= 1]
    proposals = searcher.study.get_trials(deepcopy=False)
    return {
        "kind": kind,
        "mode": mode,
        "seed": seed,
        "workers": workers,
        "lanes": lanes,
        "reached": spent[0] if spent else None,
        "share": outcome.share[-1] if outcome.share else 0.0,
        "proposals": len(proposals),
        "packed": sum(PACKED in trial.user_attrs for trial in proposals),
        "trial_reports": stacks.trial_reports,
        "stack_reports": round(stacks.stack_reports, 3),
        "took": round(time.process_time() - began, 2),
    }


if __name__ == "__main__":
    main()
