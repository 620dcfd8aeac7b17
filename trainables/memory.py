"""A device with too little memory for a config, in one line.

A smaller part of the batch at a time would not do: the statistics of EMA, entropy and respawning
are those of all latents of a step, so the trial would be another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainables.config import TrialConfig
from trainables.errors import InputError


class OutOfMemoryError(InputError):
    """The config needs more memory than the device has left for it."""


@contextmanager
def told_out_of_memory(config: TrialConfig) -> Iterator[None]:
    """Turn torch's error, of many lines, into one that says what was too large."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).partition(". ")[0].strip() or "no more is known"
        codebook = config.codebook
        raise OutOfMemoryError(
            f"out of GPU memory at batch_size {config.training.batch_size}, K={codebook.size}, "
            f"d={codebook.dim} ({first}); allowed: a smaller batch, codebook or model, or more of "
            "a GPU by --gpus-per-trial"
        ) from None
