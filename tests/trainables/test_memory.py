"""Configs that no machine has the memory for are refused before it is taken."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from trainables.config import TrialConfig
from trainables.memory import OutOfMemoryError, check_fits, told_out_of_memory
from trainables.trainer import Trainer

CPU = torch.device("cpu")
SHAPE = (64, 32)
# Within the limits of every key, and terabytes.
HUGE = {"training": {"batch_size": 65_536}, "model": {"width": 8192, "depth": 64}}


@pytest.mark.parametrize("kind", ["gradient", "ema", "fsq", "lfq"])
def test_what_is_far_too_large_is_refused(kind: str) -> None:
    size: dict[str, Any] = {"size": 32_768, "update": {"kind": kind}}
    if kind == "fsq":
        size["update"] = {"kind": kind, "levels": [32, 32, 32]}
    values = {"codebook": size, **HUGE}
    with pytest.raises(OutOfMemoryError, match=r"^at least [\d,]+ GiB are needed at batch_size"):
        check_fits(TrialConfig.from_dict(values), SHAPE, CPU)


def test_it_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(OutOfMemoryError):
        Trainer(TrialConfig.from_dict({"data": {"kind": "digits"}, **HUGE}))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"codebook": {"size": 1_048_576, "update": {"kind": "lfq"}}},
        {"codebook": {"size": 16_384, "dim": 256}, "model": {"width": 512, "depth": 8}},
    ],
)
def test_what_may_fit_is_tried(values: dict[str, Any]) -> None:
    check_fits(TrialConfig.from_dict(values), SHAPE, CPU)


def test_the_allocators_error_on_a_cpu_is_one_line() -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"K=512, d=64 .*can't allocate memory"),
        told_out_of_memory(TrialConfig()),
    ):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize(
    "told",
    [
        "CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_so_is_that_of_a_library_and_what_the_step_held_is_free(told: str) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def step() -> None:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise RuntimeError(told)

    with pytest.raises(OutOfMemoryError) as caught, told_out_of_memory(TrialConfig()):
        step()
    assert str(caught.value).startswith("out of memory at batch_size 16, K=512, d=64 (")
    assert held[0]() is None


def test_other_errors_are_not_its_own() -> None:
    with pytest.raises(RuntimeError, match="something else"), told_out_of_memory(TrialConfig()):
        raise RuntimeError("something else")
