"""A trained trial, looked into: which codes it uses, where its latents lie, what it reconstructs.

The report shows what comes of it. It runs in a plain process, from a trial's checkpoint and data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.checkpoint import read_trial
from trainables.config import TrialConfig
from trainables.config_data import FactoryData
from trainables.config_model import FactoryModel
from trainables.data import Dataset, load_dataset
from trainables.denormals import flushed_denormals
from trainables.errors import InputError
from trainables.evaluation import Evaluator
from trainables.metrics import codebook_metrics
from trainables.shown import rebuilt
from trainables.stack import Stack, default_device
from trainables.trainer import CHECKPOINT

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """A trial as its checkpoint has it.

    Attributes:
        config: the trial's.
        dataset: the data it was trained on.
        stack: a stack of this one lane.
        report: the trial's last report.
        made: what its numbers depend on beside the config, see `Trainer.made`.
    """

    config: TrialConfig
    dataset: Dataset
    stack: Stack
    report: dict[str, Any]
    made: dict[str, Any]


@dataclass(frozen=True)
class Examination:
    """What is inside, as numpy arrays.

    Attributes:
        histograms: counts [K] of each stream over the held-out set, those behind the metrics.
        perplexity: of these counts; the recorded one, unless the machine is another.
        latents: held-out latents [n, d'] as the first stream's lookup sees them.
        codes: that stream's codes in use [K', d'], on the same axes; d' is the model's d unless
            the codebook is grouped or looks up in fewer dimensions.
        code_use: counts [K'] of `codes`.
        inputs: held-out examples [C, T] or [C, H, W] as the data were before normalisation.
        outputs: their reconstructions, of the same shapes.
    """

    histograms: tuple[NDArray[np.float64], ...]
    perplexity: float
    latents: Floats
    codes: Floats
    code_use: NDArray[np.float64]
    inputs: tuple[Floats, ...]
    outputs: tuple[Floats, ...]


def restore(
    folder: Path, dataset: Dataset | None = None, own_code: Collection[str] | None = None
) -> Trained:
    """Read the trial in `folder`, and its data if none are given; on a GPU if trained on one.

    Args:
        folder: the trial's.
        dataset: its data.
        own_code: the factories that may be imported; any where None.

    Raises:
        InputError: no checkpoint or a damaged one, a trial that has diverged, data or a factory
            that are gone, other data than it was trained on, a factory that may not be imported.
    """
    path = folder / CHECKPOINT
    tensors, header = read_trial(path)
    made = header["made"]
    if header["report"].get("diverged"):
        raise InputError("has diverged, so there is nothing to look into", str(path))
    config = TrialConfig.from_dict(header["trial"], str(path))
    if own_code is not None:
        _check_code(config, own_code, path)
    dataset = dataset if dataset is not None else load_dataset(config.data)
    if made["data_fingerprint"] != dataset.fingerprint:
        raise InputError("was written with other data than there are now", str(path))
    # Seeding the codes would take seconds, and the checkpoint replaces them.
    unseeded = config.codebook.model_copy(update={"kmeans": None})
    device = default_device() if made["device"] == "cuda" else torch.device("cpu")
    with _as_then(made):
        stack = Stack([config.model_copy(update={"codebook": unseeded})], dataset, device)
        stack.load_lane(0, tensors, header["samples"])
    return Trained(config, dataset, stack, header["report"], made)


def _check_code(config: TrialConfig, own_code: Collection[str], path: Path) -> None:
    for block in (config.data, config.model):
        named = block.factory if isinstance(block, FactoryData | FactoryModel) else None
        if named is not None and named not in own_code:
            raise InputError(
                f"needs {named}, code that is not run unasked; allowed: with --trust", str(path)
            )


def examine(
    trained: Trained, examples: Sequence[NDArray[np.int64]], latents: int = 1500
) -> Examination:
    """Look into a trial.

    Args:
        trained: the trial.
        examples: what to reconstruct, as `data.examples.shown_examples` has them.
        latents: how many to return, evenly spread over held-out examples.
    """
    with _as_then(trained.made), flushed_denormals():
        return _examine(trained, examples, latents)


def _examine(trained: Trained, examples: Sequence[NDArray[np.int64]], latents: int) -> Examination:
    evaluator = Evaluator(trained.stack, trained.dataset)
    counts = [stream[0] for stream in evaluator.counts()]
    in_use = [int(codes[0]) for q in trained.stack.quantizers for codes in q.in_use]
    perplexity = codebook_metrics(counts, in_use, [1.0] * len(counts))["perplexity"]

    wanted = max(64, -(-latents // evaluator.per_example[0]))
    look = evaluator.looks(_spread(evaluator.first, wanted))
    codes, z_e = look.codebook[0].cpu().numpy(), look.z_e[0].cpu().numpy()
    everything = np.ones(len(codes), dtype=bool)
    usable = everything if look.usable is None else look.usable[0].cpu().numpy()

    inputs, outputs = rebuilt(evaluator, trained.dataset, examples)
    return Examination(
        histograms=tuple(counts),
        perplexity=perplexity,
        latents=_spread(z_e, latents).astype(np.float32),
        codes=codes[usable].astype(np.float32),
        code_use=counts[0][usable],
        inputs=inputs,
        outputs=outputs,
    )


@contextmanager
def _as_then(made: dict[str, Any]) -> Iterator[None]:
    """As many threads as in training, if there are so many.

    The numbers come out the same; and a search that is at work beside this is not fought for its
    CPUs, which would take ten times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(made["threads"], before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _spread(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """At most `count` rows, evenly spaced."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return np.asarray(rows[places])
