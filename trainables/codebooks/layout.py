"""Layouts of latents: the axes of a user's tensors to those of a quantizer and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.errors import InputError

MASKED = -1


@dataclass(frozen=True)
class Layout:
    """Latents [B, positions, d] or [B, d, positions], in none to three axes of positions.

    Attributes:
        dim: d.
        channel_first: whether d comes before the positions.
        streams: S, codes a latent has.
    """

    dim: int
    channel_first: bool
    streams: int

    def enter(self, z: Tensor) -> tuple[Tensor, torch.Size]:
        """Latents as float32 [1, N, d], and the axes [B, positions] that N runs over.

        Raises:
            InputError: latents of another shape, or none at all.
        """
        last = z.movedim(1, -1) if self.channel_first and z.dim() > 2 else z
        fits = 2 <= z.dim() <= 5 and last.shape[-1] == self.dim and z.numel() > 0
        if not fits or not z.is_floating_point():
            axes = f"[B, {self.dim}, ...]" if self.channel_first else f"[B, ..., {self.dim}]"
            raise InputError(
                f"found {z.dtype} {list(z.shape)}, allowed: floating {axes}, at least one latent "
                "and up to 3 axes of positions",
                "latents",
            )
        return last.reshape(1, -1, self.dim).float(), last.shape[:-1]

    def leave(self, z_q: Tensor, places: torch.Size) -> Tensor:
        """Quantized latents [1, N, d] in the layout of those that came in."""
        last = z_q.reshape(*places, self.dim)
        return last.movedim(-1, 1) if self.channel_first else last

    def enter_mask(self, mask: Tensor, places: torch.Size) -> Tensor:
        """A mask bool [B, positions] as [1, N].

        Raises:
            InputError: a mask of another shape or type.
        """
        if mask.shape != places or mask.dtype != torch.bool:
            raise InputError(
                f"found {mask.dtype} {list(mask.shape)}, allowed: torch.bool {list(places)}", "mask"
            )
        return mask.reshape(1, -1)

    def leave_codes(self, codes: Tensor, places: torch.Size, kept: Tensor | None) -> Tensor:
        """Codes [1, S, N] as [B, positions], or [B, positions, S] of several streams.

        Args:
            codes: int64.
            places: the axes [B, positions].
            kept: bool [1, N], False where the index is to be -1; all True where None.
        """
        if kept is not None:
            codes = codes.masked_fill(~kept.unsqueeze(1), MASKED)
        if self.streams == 1:
            return codes.reshape(places)
        return codes[0].t().reshape(*places, self.streams)

    def enter_codes(self, indices: Tensor) -> tuple[Tensor, torch.Size]:
        """Indices as codes [1, S, N], and the axes [B, positions] that N runs over.

        Raises:
            InputError: not one index a stream, or not int64.
        """
        several = self.streams > 1
        if indices.dtype != torch.int64 or (several and indices.shape[-1:] != (self.streams,)):
            axes = f"[B, ..., {self.streams}]" if several else "[B, ...]"
            raise InputError(
                f"found {indices.dtype} {list(indices.shape)}, allowed: torch.int64 {axes}",
                "indices",
            )
        places = indices.shape[:-1] if several else indices.shape
        return indices.reshape(1, -1, self.streams).mT, places
