"""`vqtune train`: one config in a plain process, without Ray, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from analysis.run_entries import NAME
from trainables.checkpoint import read_tensors, write_tensors
from trainables.config import TrialConfig
from trainables.data import load_dataset
from trainables.errors import InputError
from trainables.trainer import CHECKPOINT, Report, Trainer, weights_of
from vqtune.run_folder import out_folder, write_json, write_text
from vqtune.search import data_block

# What an interrupt before the first report leaves behind.
_FIRST_FILES = {"config.yaml", "config.yaml.part", CHECKPOINT + ".part"}

Progress = Callable[[int], None]

# torch dies where a config asks for a million.
_MOST_THREADS = 1024


def adapted(config: TrialConfig, samples: int | None, data: Path | None, seed: int) -> TrialConfig:
    """The config with another budget, other data, another seed."""
    values = config.to_dict()
    if samples is not None or data is not None or seed != config.seed:
        # The claim is another training's; the number of threads is still the one to take.
        made = values.pop("provenance", {})
        values["provenance"] = {key: made[key] for key in ("threads",) if key in made} or None
    values["seed"] = seed
    if samples is not None:
        values["training"]["samples"] = samples
    if data is not None:
        values["data"] = data_block(data, values["data"])
    return TrialConfig.from_dict(values)


def train(
    config: TrialConfig, out: Path, progress: Progress, warn: Callable[[str], None]
) -> Report:
    """Train into the folder `out`, going on from what it holds; returns the last report.

    Writes config.yaml, a checkpoint at every report, and in the end metrics.json and
    weights.safetensors. On a CPU it takes the number of threads that the config records, so that
    the numbers come out the same.

    Raises:
        InputError: `out` holds the training of another config, or data that will not do.
    """
    made = config.provenance or {}
    threads = made.get("threads")
    if type(threads) is int and 0 < threads <= _MOST_THREADS:
        torch.set_num_threads(threads)
    begun = (out / CHECKPOINT).exists()
    if not begun and out.is_dir() and {path.name for path in out.iterdir()} - _FIRST_FILES:
        raise InputError("is not empty and holds no checkpoint; allowed: another --out", str(out))
    trainer = Trainer(config, load_dataset(config.data))
    if begun:
        trainer.load(out)
        progress(trainer.stack.samples[0])
    out_folder(out)
    for warning in trainer.warnings:
        warn(warning)
    if made.get("device", trainer.stack.device.type) != trainer.stack.device.type:
        warn(f"the config was exported from a trial on {made['device']}: expect other last digits")
    fingerprint = made.get("data_fingerprint", trainer.dataset.fingerprint)
    if fingerprint != trainer.dataset.fingerprint:
        warn("the data are not those that the config was exported with: expect other metrics")
    write_text(out / "config.yaml", config.to_yaml())
    while not trainer.done:
        trainer.advance(progress)
        trainer.save(out)
    tensors, header = read_tensors(out / CHECKPOINT)
    write_tensors(out / "weights.safetensors", weights_of(tensors), header)
    write_json(out / "metrics.json", trainer.report)
    return trainer.report


def trained_folder(config: TrialConfig, name: str) -> Path:
    """Where a training goes unless told otherwise; apart by run where an export tells it.

    The first configs of two runs may well have one name.
    """
    run = (config.provenance or {}).get("run")
    known = isinstance(run, str) and NAME.fullmatch(run)
    return Path("trained") / str(run) / name if known else Path("trained") / name


def claim(config: TrialConfig) -> dict[str, Any]:
    """The metrics that an exported config came with; empty for a config written by hand."""
    metrics = (config.provenance or {}).get("metrics")
    return dict(metrics) if isinstance(metrics, dict) else {}
