"""Which tensors of a quantizer make the trained codebook, and their names in exported weights.

All else is of its training only: moving averages, ages of codes, a buffer of latents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.errors import InputError

# Beside the codes: projections, running statistics of a normalisation, what SimVQ's codes come of.
_KEPT = ("project_", "norm_", "simvq_")
# What a trial has grown to by its end.
_GROWN = ("usable", "open_dims")


def exported_name(name: str) -> str | None:
    """The name that a quantizer's tensor `codebook.…` has in exported weights; None if in none.

    `codebook.codebook`, the codes, becomes `codebook`; those of residual level 1 `codebook.1`.
    """
    place, _, own = name.rpartition(".")
    if own == "codebook":
        return place
    return name if any(f".{part}" in name for part in _KEPT) else None


def trained_state(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], level: str
) -> dict[str, Tensor]:
    """What of a quantizer's `state` exported weights set, in its shapes.

    Args:
        state: all tensors of a quantizer, [1, ...] or [groups, ...].
        weights: tensors of an export, without the first axis where that is 1.
        level: `top` or `bottom` in a hierarchy, else empty.

    Raises:
        InputError: a tensor that is missing, or of another shape.
    """
    found = {}
    for name, value in state.items():
        if name.rpartition(".")[2] in _GROWN:
            found[name] = torch.ones_like(value)
        key = exported_name(f"codebook.{level}.{name}" if level else f"codebook.{name}")
        if key is None:
            continue
        if key not in weights:
            raise InputError(f"lacks {key!r}; allowed: those of a trial of this config", "weights")
        if weights[key].shape not in (value.shape, value.shape[1:]):
            raise InputError(
                f"{key!r} has shape {list(weights[key].shape)}, allowed: {list(value.shape[1:])}",
                "weights",
            )
        found[name] = weights[key].reshape(value.shape)
    return found
