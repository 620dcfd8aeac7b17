"""Grouped codebooks: the dimensions are split, and each part has a codebook of its own."""

from __future__ import annotations

from torch import Tensor


def split_groups(z: Tensor, groups: int) -> Tensor:
    """Latents [L, N, G * d] to [L * G, N, d]: to the codebook, groups are lanes.

    Product quantization (Jegou et al. 2011, eq. 8); as codebooks of a VQ-VAE in vq-wav2vec
    (Baevski et al. 2020, section 3.3).
    """
    if groups == 1:
        return z
    lanes, count, _ = z.shape
    return z.reshape(lanes, count, groups, -1).transpose(1, 2).reshape(lanes * groups, count, -1)


def join_groups(z: Tensor, groups: int) -> Tensor:
    """Latents [L * G, N, d] back to [L, N, G * d]."""
    if groups == 1:
        return z
    _, count, dim = z.shape
    return z.reshape(-1, groups, count, dim).transpose(1, 2).reshape(-1, count, groups * dim)
