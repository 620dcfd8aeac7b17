"""Counter-based noise: what a lane draws depends on its seed and its own step, never on neighbours.

torch.Generator cannot be batched over lanes, so a stack would draw in another order than a single
trial. These are pure functions of integer keys (the finaliser of SplitMix64, Steele et al. 2014),
the same on every device (normals to rounding), without state to save and without a device wait.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# SplitMix64's constants, as signed 64-bit integers; int64 products wrap as they must.
_GOLDEN = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685
_WORD = (1 << 64) - 1


def mix(x: Tensor) -> Tensor:
    """Scramble int64 values of any shape bijectively."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def fold(key: Tensor, data: Tensor | int) -> Tensor:
    """A new int64 key from a key and data that broadcast together."""
    # A plain integer stays one: as a tensor on a GPU it would cost a copy and a wait.
    return mix(mix(key + _GOLDEN) + data)


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform float32 in [0, 1), [L, *shape], from keys int64 [L]."""
    count = math.prod(shape)
    index = torch.arange(count, device=key.device)
    bits = mix(key.unsqueeze(-1) + (index + 1) * _GOLDEN)
    unit = _shift_right(bits, 40).to(torch.float32) * 2.0**-24
    return unit.view(-1, *shape)


def normal(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 [L, *shape] from keys int64 [L] (Box-Muller)."""
    radius = uniform(fold(key, 1), shape)
    angle = uniform(fold(key, 2), shape)
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * math.pi * angle)


def uniform_on_host(key: int, count: int) -> list[float]:
    """What `uniform` gives for one key, by plain integers: for what the host must know."""
    return [(mix_on_host(key + (i + 1) * _GOLDEN) >> 40) * 2.0**-24 for i in range(count)]


def fold_on_host(key: int, data: int) -> int:
    """What `fold` gives, modulo 2**64."""
    return mix_on_host(mix_on_host(key + _GOLDEN) + data)


def mix_on_host(x: int) -> int:
    """What `mix` gives, modulo 2**64."""
    x &= _WORD
    x = (x ^ x >> 30) * _MIX_1 & _WORD
    x = (x ^ x >> 27) * _MIX_2 & _WORD
    return x ^ x >> 31


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # int64 shifts keep the sign; the mask makes the shift a logical one.
    return (x >> bits) & ((1 << (64 - bits)) - 1)
