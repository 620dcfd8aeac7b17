"""Examples and their reconstructions as small pixel images, for the page and the pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from analysis.specimen import Array, Kind

Pixels = npt.NDArray[np.uint8]


def pixels(arrays: Sequence[Array], kind: Kind) -> list[Pixels]:
    """Bring one example and its reconstructions to pixels [H, W, 3] on one scale.

    The scale is that of the first array, the example; what a reconstruction has beyond it is cut
    off. Spectrograms [mels, frames] and series [channels, time] are coloured, low mels at the
    bottom; images are [H, W] or [H, W, 3]. Values that are not finite are drawn as the lowest.
    """
    finite = arrays[0][np.isfinite(arrays[0])]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    scaled = [
        np.clip((np.nan_to_num(a, nan=low) - low) / ((high - low) or 1.0), 0.0, 1.0) for a in arrays
    ]
    if kind == "image":
        grey = [np.repeat(a[..., None], 3, axis=-1) if a.ndim == 2 else a for a in scaled]
        return [np.rint(255 * a).astype(np.uint8) for a in grey]
    colour = partial(mpl.colormaps["magma"], bytes=True)
    flipped = [a[::-1] for a in scaled] if kind == "spectrogram" else scaled
    return [np.asarray(colour(a))[..., :3].astype(np.uint8) for a in flipped]


def png(image: Pixels) -> bytes:
    """Write pixels [H, W, 3] as a PNG file, by a palette where they have at most 256 colours."""
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours, places = np.unique(packed, return_inverse=True)
    if len(colours) <= 256:
        drawn = Image.fromarray(places.reshape(packed.shape).astype(np.uint8), mode="P")
        drawn.putpalette([int(c >> shift) & 255 for c in colours for shift in (16, 8, 0)])
    else:
        drawn = Image.fromarray(image)
    file = io.BytesIO()
    drawn.save(file, format="PNG", optimize=True)
    return file.getvalue()
