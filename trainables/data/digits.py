"""`digits`: scikit-learn's real handwritten digits, embedded in its package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainables.config_data import DigitsData
from trainables.data.source import Material, Piece, Source


def open_source(config: DigitsData, index: Path) -> Source:
    """Name the source; nothing is read yet."""
    return Source(where="digits", content="digits", usable="the embedded digits", read=_read)


def _read() -> Material:
    from sklearn.datasets import load_digits  # noqa: PLC0415  heavy

    pixels = load_digits().images / 16  # [1797, 8, 8] in [0, 1]
    return Material([Piece("digits", "digits", pixels[:, np.newaxis].astype(np.float32))], {})
