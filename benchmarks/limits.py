"""What the arithmetic and the bytes of a training step allow on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trainables.stack import wait_for


class Bytes(TorchDispatchMode):
    """Bytes that operators read and write, each from and to the device's memory."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operator that is no view."""
        out = func(*args, **(kwargs or {}))
        if not any(a.alias_info and not a.alias_info.is_write for a in func._schema.arguments):
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, Tensor):
                    self.total += leaf.numel() * leaf.element_size()
        return out


def work_of(step: Callable[[], None]) -> tuple[int, int]:
    """Floating-point operations and bytes of one step."""
    flops, moved = FlopCounterMode(display=False), Bytes()
    with flops, moved:
        step()
    return flops.get_total_flops(), moved.total


def rates(device: torch.device) -> tuple[float, float]:
    """FLOP/s of a large product in the dtype that trials use, and bytes/s of a large copy."""
    cuda = device.type == "cuda"
    side, dtype = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    room = torch.empty((1 << 30 if cuda else 1 << 26) // 4, device=device)
    target = torch.empty_like(room)
    product = _best(lambda: torch.mm(a, a, out=out), device)
    copy = _best(lambda: target.copy_(room), device)
    return 2 * side**3 / product, 2 * room.numel() * 4 / copy


def _best(work: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
