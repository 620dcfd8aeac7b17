"""A device with too little memory for a config, in one line.

A smaller part of the batch at a time would not do: the statistics of EMA, entropy and respawning
are those of all latents of a step, so the trial would be another one.
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainables.config import TrialConfig
from trainables.config_codebook import FsqUpdate, GradientUpdate, LfqUpdate
from trainables.config_model import FactoryModel
from trainables.errors import InputError

# How torch's allocator for the CPU says so, in an error of no kind of its own.
_ON_CPU = "can't allocate memory"
# And CUDA's libraries, which ask for memory themselves: cuDNN looks for an algorithm that fits.
_OF_LIBRARIES = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
)


class OutOfMemoryError(InputError):
    """The config needs more memory than the device has left for it."""


def check_fits(config: TrialConfig, example_shape: tuple[int, ...], device: torch.device) -> None:
    """Refuse what is far too large before the memory is asked for it.

    On a CPU the system would end the process, or others beside it.

    Raises:
        OutOfMemoryError: codes, weights and one step alone are more than all that the device has.
    """
    if device.type == "cuda":
        have = int(torch.cuda.get_device_properties(device).total_memory)
    else:
        have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    need = 4 * (_code_numbers(config) + _model_numbers(config, example_shape))
    if need > have:
        raise OutOfMemoryError(
            f"at least {need / 2**30:,.0f} GiB are needed at batch_size "
            f"{config.training.batch_size}, K={config.codebook.size}, d={config.codebook.dim}, and "
            f"the device has {have / 2**30:,.0f} GiB; allowed: a smaller batch, codebook or model"
        )


def _code_numbers(config: TrialConfig) -> int:
    """Codes with their gradient and Adam's two moments, or with their moving sums."""
    codebook = config.codebook
    if isinstance(codebook.update, FsqUpdate | LfqUpdate):
        return 0
    copies = 4 if isinstance(codebook.update, GradientUpdate) else 2
    return copies * codebook.size * min(codebook.dim, codebook.lookup_dim)


def _model_numbers(config: TrialConfig, example_shape: tuple[int, ...]) -> int:
    """The residual blocks' larger kernels, four times as above, and what a step keeps of them."""
    model, positions = config.model, math.prod(example_shape[1:])
    batch = config.training.batch_size * math.prod(example_shape)
    if isinstance(model, FactoryModel):
        return batch
    axes = len(example_shape) - 1
    inner = positions // math.prod(model.strides) ** axes
    weights = 2 * model.depth * model.width**2 * model.kernel**axes
    kept = config.training.batch_size * model.width * 2 * (positions + model.depth * inner)
    return int(batch + 4 * weights + kept)


def release(error: BaseException) -> None:
    """Free what the calls hold that an error has ended, such as a training step's tensors."""
    behind: BaseException | None = error
    while behind is not None:
        traceback.clear_frames(behind.__traceback__)
        behind = behind.__context__


@contextmanager
def told_out_of_memory(config: TrialConfig) -> Iterator[None]:
    """Turn torch's error, of many lines, into one that says what was too large."""
    try:
        yield
    except RuntimeError as error:
        told = str(error)
        known = isinstance(error, torch.OutOfMemoryError)
        if not known and not any(text in told for text in (_ON_CPU, *_OF_LIBRARIES)):
            raise
        release(error)  # others may be on the device
        told = told[max(0, told.find(_ON_CPU)) :]
        first = told.partition(". ")[0].strip() or "no more is known"
        codebook = config.codebook
        raise OutOfMemoryError(
            f"out of memory at batch_size {config.training.batch_size}, K={codebook.size}, "
            f"d={codebook.dim} ({first}); allowed: a smaller batch, codebook or model, or more of "
            "a GPU by --gpus-per-trial"
        ) from None
