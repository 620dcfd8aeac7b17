"""Codebook techniques, one file each, and the codebook that composes them."""

from __future__ import annotations

from trainables.codebooks.codebook import TECHNIQUES, Codebook, Quantized
from trainables.codebooks.nearest import nearest_codes
from trainables.codebooks.technique import Clock, Replacement, Step, Technique

__all__ = [
    "TECHNIQUES",
    "Clock",
    "Codebook",
    "Quantized",
    "Replacement",
    "Step",
    "Technique",
    "nearest_codes",
]
