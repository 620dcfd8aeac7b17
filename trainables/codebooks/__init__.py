"""Codebook techniques, one file each, and the quantizer that composes them.

`VectorQuantizer` is the door for a model of your own.
"""

from __future__ import annotations

from trainables.codebooks.codebook import Codebook
from trainables.codebooks.menu import TECHNIQUES
from trainables.codebooks.module import Output, VectorQuantizer
from trainables.codebooks.nearest import nearest_codes
from trainables.codebooks.quantizer import Plan, Quantized, Quantizer
from trainables.codebooks.technique import Clock, Replacement, Step, Technique

__all__ = [
    "TECHNIQUES",
    "Clock",
    "Codebook",
    "Output",
    "Plan",
    "Quantized",
    "Quantizer",
    "Replacement",
    "Step",
    "Technique",
    "VectorQuantizer",
    "nearest_codes",
]
