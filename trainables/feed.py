"""Batches for all lanes: each lane's own order of examples, data on the device where it fits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from trainables.data import Split

# Share of the device's free memory that the data may take.
_SHARE = 0.5


class Order:
    """The order in which a lane with a given seed draws its training examples.

    Each epoch is a fresh permutation, and each clip is shifted by a random number of frames. It is
    a pure function of the seed and the number of samples drawn before, so nothing needs saving.
    """

    def __init__(self, split: Split, seed: int) -> None:
        """Examples of `split` in the order of `seed`."""
        self._split, self._seed = split, seed
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def first_frames(self, drawn: int, count: int) -> np.ndarray:
        """First frame (or item) of the next `count` examples after `drawn`: int64 [count]."""
        parts, size = [], len(self._split)
        while count > 0:
            epoch, position = divmod(drawn, size)
            part = self._epoch(epoch)[position : position + count]
            parts.append(part)
            drawn, count = drawn + len(part), count - len(part)
        return np.concatenate(parts)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        order = generator.permutation(len(self._split))
        slack = self._split.slack[order]
        shift = (generator.random(len(order)) * (slack + 1)).astype(np.int64)
        return np.asarray(self._split.starts[order] + shift)


# What is on a device now.
_RESIDENT: WeakValueDictionary[tuple[Split, torch.device, torch.dtype], Tensor] = (
    WeakValueDictionary()
)


@lru_cache(maxsize=4)  # keeps it between one trial and the next
def _resident(split: Split, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A split's values on the device, once for all trials of the process."""
    found = _RESIDENT.get((split, device, dtype))
    if found is None:
        found = _RESIDENT[split, device, dtype] = _sent(split, device, dtype)
    return found


def _sent(split: Split, device: torch.device, dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        # The file's memory map is read-only, and nothing here writes to it: on a CPU all trials of
        # a machine share its pages.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(split.values).to(device, dtype)


def _free_bytes() -> int:
    """What the GPU has left, torch's own cached blocks among it."""
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + cached


class Feed:
    """Gathers examples of one split into batches [..., C, T] or [..., C, H, W] on a device."""

    def __init__(
        self, split: Split, clip_frames: int | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Move the values to the device, if they are not, where at most half of it is taken."""
        self.clip_frames, self.device, self.dtype = clip_frames, device, dtype
        self._host: np.ndarray | None = None
        self._values: Tensor | None = None
        there = (split, device, dtype) in _RESIDENT
        if device.type == "cuda" and not there and split.values.nbytes > _SHARE * _free_bytes():
            self._host = split.values
        else:
            self._values = _resident(split, device, dtype)

    def places(self, first: np.ndarray | Sequence[int]) -> Tensor | np.ndarray:
        """First frames [...] moved to where `batch` wants them, in one transfer."""
        index = np.asarray(first, dtype=np.int64)
        return index if self._values is None else self._on_device(torch.from_numpy(index))

    def batch(self, places: Tensor | np.ndarray) -> Tensor:
        """Examples [..., C, T] or [..., C, H, W] that begin at `places` [...]."""
        if self._values is not None:
            assert isinstance(places, Tensor)
            if self.clip_frames is None:
                return self._values[places]
            frames = torch.arange(self.clip_frames, device=self.device)
            return self._values[places.unsqueeze(-1) + frames].mT.contiguous()
        assert self._host is not None
        if self.clip_frames is None:
            return self._on_device(torch.from_numpy(self._host[places])).to(self.dtype)
        clips = self._host[np.asarray(places)[..., None] + np.arange(self.clip_frames)]
        return self._on_device(torch.from_numpy(clips)).to(self.dtype).mT.contiguous()

    def _on_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            # From pinned memory the copy runs beside the computation.
            return values.pin_memory().to(self.device, non_blocking=True)
        return values
