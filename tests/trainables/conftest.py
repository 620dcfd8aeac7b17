"""A tiny data set with known structure, and short configs over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from trainables.config import TrialConfig
from trainables.data import Dataset, Split


def make_dataset(channels: int = 6, frames: int = 8, clips: int = 60, seed: int = 0) -> Dataset:
    """Smooth random sequences: enough to train on, nothing to learn about the world."""
    rng = np.random.default_rng(seed)

    def split(n: int, slack: int) -> Split:
        walk = rng.standard_normal((n * frames + slack, channels)).cumsum(0)
        values = ((walk - walk.mean()) / walk.std()).astype(np.float32)
        starts = np.arange(n, dtype=np.int64) * frames
        return Split(values, starts, np.full(n, slack, dtype=np.int64))

    return Dataset(
        train=split(clips, frames - 1),
        heldout=split(max(4, clips // 4), 0),
        clip_frames=frames,
        example_shape=(channels, frames),
        mean=0.0,
        std=1.0,
        fingerprint="tiny",
        warnings=(),
        details={},
    )


def make_config(codebook: dict[str, Any] | None = None, **training: Any) -> TrialConfig:
    """A trial of some 20 steps of 4 clips of 8 frames."""
    return TrialConfig.from_dict(
        {
            "model": {"width": 8, "depth": 1},
            "codebook": {"size": 16, "dim": 4, **(codebook or {})},
            "training": {"samples": 80, "batch_size": 4, "reports": 2, **training},
            "evaluation": {"latents": 64},
        }
    )


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@contextmanager
def no_waits() -> Iterator[None]:
    """Raise where the host waits for a GPU."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


# Every technique of the package at a setting that acts within 20 steps.
MIXES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gradient": {"update": {"kind": "gradient", "lr_ratio": 3.0}, "respawn": {"period": 16}},
    "ema": {"update": {"kind": "ema", "decay": 0.9}},
    "accumulated": {"update": {"kind": "ema", "decay": 0.9, "accumulate": 3}},
    "respawn": {"update": {"kind": "ema"}, "respawn": {"period": 16, "threshold": 0.5}},
    "buffer": {"update": {"kind": "ema"}, "respawn": {"period": 24, "buffer": 100}},
    "entropy": {"update": {"kind": "ema"}, "entropy": {"weight": 0.2, "temperature": 1.0}},
    "kmeans": {"update": {"kind": "ema"}, "kmeans": {"latents": 200}},
    "growth": {"update": {"kind": "ema"}, "growth": {"start": 4, "at": 0.3}},
    "rotation": {"update": {"kind": "ema"}, "rotation": {}},
    "least recent": {"update": {"kind": "ema"}, "least_recent": {"patience": 16}},
    "reanchor": {"update": {"kind": "ema"}, "reanchor": {"decay": 0.5}},
    "falling": {"update": {"kind": "gradient", "lr_final": 0.1}},
    "simvq": {"update": {"kind": "simvq", "lr_ratio": 2.0}, "entropy": {"weight": 0.1}},
    "fsq": {"update": {"kind": "fsq", "levels": [4, 4]}, "commitment": {"beta": 0.0}},
    "lfq": {
        "update": {"kind": "lfq"},
        "entropy": {"weight": 0.1, "temperature": 1.0},
        "sample_entropy": {"weight": 0.1, "temperature": 1.0},
    },
    "low dim": {"low_dim": {"dim": 2}, "respawn": {"period": 16}},
    "cosine": {"update": {"kind": "ema", "decay": 0.9}, "cosine": {}, "respawn": {"period": 16}},
    "cosine gradient": {"cosine": {}, "growth": {"start": 4, "at": 0.3}},
    "dim growth": {"dim_growth": {"start": 2, "at": 0.5}, "respawn": {"period": 16}},
    "batch norm": {"normalization": {"kind": "batch"}, "kmeans": {"latents": 200}},
    "layer norm": {"normalization": {"kind": "layer"}, "update": {"kind": "ema"}},
    "stochastic": {"update": {"kind": "ema"}, "stochastic": {"temperature": 1.0, "until": 0.6}},
    "groups": {"groups": {"count": 2}, "respawn": {"period": 16, "buffer": 50}},
    "residual": {
        "update": {"kind": "ema", "decay": 0.9},
        "residual": {"levels": 3, "dropout": 0.5},
        "respawn": {"period": 16},
        "kmeans": {"latents": 200},
    },
    # Respawns in the first step after 36 samples, when the dimensions have been open for one.
    "grouped growth": {
        "groups": {"count": 2},
        "dim_growth": {"start": 2, "at": 0.4},
        "respawn": {"period": 20, "threshold": 0.9, "jitter": 0.1},
    },
    "grouped residual": {
        "groups": {"count": 2},
        "residual": {"levels": 2},
        "normalization": {"kind": "batch"},
        "dim_growth": {"start": 2, "at": 0.4},
        "entropy": {"weight": 0.1, "temperature": 1.0},
        "rotation": {},
    },
    "pair": {
        "entropy": {"weight": 0.1, "temperature": 1.0},
        "sample_entropy": {"weight": 0.1, "temperature": 1.0},
    },
    "all": {
        "update": {"kind": "ema", "decay": 0.9, "accumulate": 2},
        "commitment": {"beta": 2.0},
        "entropy": {"weight": 0.1, "temperature": 1.0},
        "respawn": {"period": 12, "buffer": 50, "threshold": 0.4},
        "kmeans": {"latents": 100},
        "growth": {"start": 4, "at": 0.4},
    },
    "all gradient": {
        "update": {"kind": "gradient", "lr_ratio": 5.0},
        "entropy": {"weight": 0.1, "temperature": 1.0},
        "respawn": {"period": 12, "threshold": 0.4},
        "kmeans": {"latents": 100},
        "growth": {"start": 4, "at": 0.4},
    },
}
