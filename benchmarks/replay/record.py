"""Record the learning curves that searches are replayed on.

    python -m benchmarks.replay.record --data DIR [--configs N] [--samples N] [--out DIR]

Draws configs of the space `full` at random, trains each to its end and keeps every report. Ends
with two files, `curves.parquet` (one row a report) and `configs.parquet` (one row a config); what
is there already is not trained again, so that the same command goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.json_lines import read_lines
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.trainer import Trainer
from vqtune.search import data_block
from vqtune.spaces import Space, load_space

HERE = Path(__file__).parent
# Half the width of the default model and two thirds of its samples: a config in 13 s on one core.
WIDTH, SAMPLES, REPORTS = 64, 16_000, 16
METRICS = ("recon_loss", "perplexity", "usage", "active_codes", "codes_in_use", "bits_per_frame")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--configs", type=int, default=512)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    console = Console(highlight=False)
    space = recorded_space(options.samples, options.data)
    drawn = draw(space, options.configs)
    options.out.mkdir(parents=True, exist_ok=True)
    part = options.out / "curves.jsonl"
    done = {rows[0]["config"] for rows in read_lines(part)}
    wanted = {number: config for number, (_, config) in enumerate(drawn) if number not in done}
    with (
        ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool,
        part.open("a", encoding="utf-8") as file,
    ):
        futures = [pool.submit(train, number, config) for number, config in wanted.items()]
        for future in track(as_completed(futures), total=len(futures), console=console):
            file.write(json.dumps(future.result()) + "\n")
            file.flush()
    write_tables(drawn, [row for rows in read_lines(part) for row in rows], options.out)
    console.print(f"{len(drawn)} configs recorded in {options.out}")


def recorded_space(samples: int = SAMPLES, data: Path | None = None) -> Space:
    """`full`, on a smaller model and fewer samples."""
    more = {"training.samples": samples, "training.reports": REPORTS, "model.width": WIDTH}
    space = load_space("full").with_overrides(more)
    if data is not None:
        block = data_block(data, space.parameters["data"])
        space = replace(space, parameters={**space.parameters, "data": block})
    return space


def draw(space: Space, configs: int) -> list[tuple[Row, Row]]:
    """Parameters and config of each; number 0 is the baseline, which has no parameters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn: list[tuple[Row, Row]] = [({}, space.baseline().to_dict())]
    while len(drawn) <= configs:
        trial = study.ask()
        try:
            config = TrialConfig.from_dict(space.suggest(trial))
        except InputError:  # a combination that a search would not try either
            continue
        drawn.append((trial.params, config.to_dict()))
    return drawn


def train(number: int, values: Row) -> list[Row]:
    """All reports of one config; seconds are those of the process, whatever else runs beside it."""
    torch.set_num_threads(1)
    began = time.process_time()
    trainer = Trainer(TrialConfig.from_dict(values))
    rows = []
    while not trainer.done:
        report = trainer.advance()
        rows.append(
            {"config": number, "samples": report["samples"], "seconds": time.process_time() - began}
            | {name: float(report[name]) for name in METRICS}
            | {"size": trainer.stack.quantizers[0].size, "diverged": bool(report["diverged"])}
        )
    return rows


def write_tables(drawn: list[tuple[Row, Row]], rows: list[Row], out: Path) -> None:
    curves = pd.DataFrame(rows).sort_values(["config", "samples"], ignore_index=True)
    small = dict.fromkeys(("seconds", *METRICS), "float32")
    kinds = {"config": "int16", "samples": "int32", "size": "int16", **small}
    curves.astype(kinds).to_parquet(out / "curves.parquet", index=False, compression="zstd")
    last = curves.groupby("config").last()
    configs = pd.DataFrame(
        {
            "config": number,
            "parameters": json.dumps(parameters),
            "size": int(last["size"].get(number, 0)),
            "ended": math.isfinite(last["recon_loss"].get(number, math.nan)),
        }
        for number, (parameters, _) in enumerate(drawn)
    )
    configs.to_parquet(out / "configs.parquet", index=False, compression="zstd")


if __name__ == "__main__":
    main()
