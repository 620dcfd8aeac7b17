"""Which techniques fill a codebook: each alone, the recipe, and the best that a search found.

    python -m benchmarks.collapse --data DIR|digits|synthetic [--seeds N] [--samples N]
        [--trials N] [--out DIR] [--only ROW,ROW]

Every row is trained with several seeds on equal samples, in the default setting (32 frames, batch
16, K = 512), and measured on the same held-out latents. Each result is kept in a file in --out as
it comes, so that the same command goes on where it was ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from analysis.ranking import front_table
from analysis.records import read_run
from benchmarks.collapse_rows import ALONE, BY_HAND, LAYOUTS, RECIPE, Row
from benchmarks.json_lines import read_lines
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from vqtune.search import Request, data_block, search
from vqtune.spaces import load_space

# Of the search's front, the highest perplexity at no more than this share of the baseline's loss.
MOST_LOSS = 0.42
DIGITS_MODEL = {"width": 64}

Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=24_000)
    parser.add_argument("--trials", type=int, default=96, help="of the search; 0 for none")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="names of rows, separated by commas")
    options = parser.parse_args()
    name = Path(options.data).name
    out: Path = options.out or Path("runs") / f"collapse-{name}"
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=200, highlight=False)
    base = base_values(options.data, options.samples)
    rows = [row for row in [*ALONE, RECIPE, BY_HAND, *LAYOUTS] if fits(row, base)]
    if options.only:
        rows = [row for row in rows if row.name in options.only.split(",")]
    elif options.trials:
        found = searched(options, out, console)
        if found is not None:
            rows.insert(len(rows) - len(LAYOUTS), found)
    results = train_all(rows, base, options.seeds, out / "results.jsonl", console)
    console.print(
        f"{name}: {options.samples:,} samples a trial, {options.seeds} seeds, "
        f"torch {torch.__version__}"
    )
    tables(rows, results, console)


def base_values(data: str, samples: int) -> dict[str, Any]:
    """The default trial on this data."""
    known = data in ("digits", "synthetic")
    block = {"kind": data} if known else data_block(Path(data), {"kind": "synthetic"})
    base = {"data": block, "training": {"samples": samples, "reports": 4}}
    # Two axes cost three times as much; half the width brings a trial back to half a minute.
    return {**base, "model": DIGITS_MODEL} if data == "digits" else base


def fits(row: Row, base: dict[str, Any]) -> bool:
    """Frames have a number of bits; single images of the digits are too small for a hierarchy."""
    return not (base["data"]["kind"] == "digits" and row.frames_only)


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A config's values over others, block by block."""
    both = dict(base)
    for key, value in more.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if inner else value
    return both


def searched(options: argparse.Namespace, out: Path, console: Console) -> Row | None:
    """The chosen trial of a search over everything, as a row; runs the search or resumes it."""
    data = None if options.data == "synthetic" else Path(options.data)
    if options.data == "digits":
        space = out / "full_digits.yaml"
        full = load_space("full")
        parameters = {"data": {"kind": "digits"}, "model": DIGITS_MODEL}
        values = {"extends": "full", "parameters": parameters, "starts": list(full.starts)}
        space.write_text(json.dumps(values))
        data = None
    else:
        space = Path("full")
    run = out / "search"
    request = Request(
        str(space),
        data=data,
        trials=options.trials,
        samples=options.samples,
        name="search",
        storage=out,
        resume=(run / "spec.yaml").exists(),
    )
    if not search(request, console).finished:
        return None
    table = front_table(read_run(run))
    front = table[table["on_front"]]
    good = front[front["recon_loss_x"] <= MOST_LOSS].sort_values("perplexity", ascending=False)
    chosen = (good if len(good) else front.sort_values("recon_loss")).iloc[0]
    values = {k: v for k, v in chosen["config"].items() if k in ("model", "codebook", "training")}
    console.print(f"search's choice: {chosen['trial_id']}: {chosen['technique']}")
    return Row(f"search, {options.trials} trials ({chosen['trial_id']})", values)


def train_all(
    rows: list[Row], base: dict[str, Any], seeds: int, path: Path, console: Console
) -> dict[tuple[str, int], Result]:
    """Train what is not in the file yet, one process a core."""
    jobs: dict[tuple[str, int], TrialConfig] = {}
    for seed in range(seeds):  # all rows of a seed first: an early look shows every row
        for row in rows:
            values = {**merged(base, row.values), "seed": seed}
            jobs[row.name, seed] = TrialConfig.from_dict(values, row.name)
    done = {
        key: result
        for key, made, result in read_results(path)
        if key in jobs and made == digest(jobs[key])
    }
    jobs = {key: config for key, config in jobs.items() if key not in done}
    workers = len(os.sched_getaffinity(0))
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        path.open("a", encoding="utf-8") as file,
    ):
        futures = {pool.submit(train, config.to_dict()): key for key, config in jobs.items()}
        ended = track(as_completed(futures), total=len(futures), console=console)
        for future in ended:
            name, seed = futures[future]
            done[name, seed] = future.result()
            made = {"row": name, "seed": seed, "config": digest(jobs[name, seed])}
            file.write(json.dumps({**made, **done[name, seed]}) + "\n")
            file.flush()
    return done


def read_results(path: Path) -> Iterator[tuple[tuple[str, int], str, Result]]:
    """Row and seed, digest of the config, and report of every whole line."""
    for result in read_lines(path):
        yield (result.pop("row"), result.pop("seed")), result.pop("config", ""), result


def digest(config: TrialConfig) -> str:
    """Tell configs apart: a row of the same name may have been trained with other settings."""
    return hashlib.sha256(config.to_yaml().encode()).hexdigest()[:16]


def train(values: dict[str, Any]) -> Result:
    torch.set_num_threads(1)
    trainer = Trainer(TrialConfig.from_dict(values))
    while not trainer.done:
        trainer.advance()
    return trainer.report


def tables(rows: list[Row], results: dict[tuple[str, int], Result], console: Console) -> None:
    """Mean ± standard deviation over seeds; recon_loss also as a ratio to the same seed's."""
    layouts = {row.name for row in LAYOUTS}
    groups = [[r for r in rows if r.name not in layouts], [r for r in rows if r.name in layouts]]
    for group in groups:
        if not group:
            continue
        console.print("")
        console.print(
            "| technique | active codes | perplexity | recon_loss | × baseline's | bits/frame | s |"
        )
        console.print("|---|---|---|---|---|---|---|")
        for row in group:
            console.print(line(row, results))


def line(row: Row, results: dict[tuple[str, int], Result]) -> str:
    mine = {seed: result for (name, seed), result in results.items() if name == row.name}
    well = {seed: result for seed, result in mine.items() if not result["diverged"]}
    if not well:
        return f"| {row.name} | all {len(mine)} seeds diverged | | | | | |"
    ratios = [
        result["recon_loss"] / results["baseline", seed]["recon_loss"]
        for seed, result in well.items()
        if ("baseline", seed) in results
    ]
    lost = (
        f" ({len(mine) - len(well)} of {len(mine)} seeds diverged)" if len(mine) > len(well) else ""
    )
    cells = [
        f"{row.name}{lost}",
        spread([result["active_codes"] for result in well.values()], ".0f"),
        spread([result["perplexity"] for result in well.values()], ".1f"),
        spread([result["recon_loss"] for result in well.values()], ".4f"),
        spread(ratios, ".3f"),
        f"{statistics.mean(r['bits_per_frame'] for r in well.values()):.2f} of "
        f"{next(iter(well.values()))['bits_per_frame_nominal']:.0f}",
        f"{statistics.median(result['seconds'] for result in well.values()):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def spread(values: list[float], form: str) -> str:
    if not values:
        return ""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(statistics.stdev(values), form)}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
