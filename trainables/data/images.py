"""`images`: a folder of pictures, each brought to the same square size."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.config_data import ImagesData
from trainables.data.folder import allowed, list_files
from trainables.data.source import Material, Source, UnusableError, read_files


def open_source(config: ImagesData, index: Path) -> Source:
    """List and hash the folder. Raises InputError where it holds no images."""
    listing = list_files(config.path, "images")

    def read() -> Material:
        one = partial(read_image, size=config.size, grayscale=config.grayscale)
        pieces = read_files(listing.root, listing.names, one)
        return Material(chain(listing.closed, pieces), {})

    return Source(listing.where, listing.content(index), allowed("images"), read)


def read_image(path: Path, size: int, grayscale: bool) -> NDArray[np.float32]:
    """Read a picture, or the first of its frames, as [1, C, size, size] within [0, 1].

    The shorter side is resized and the longer one cropped around its centre. Transparency is
    dropped. Raises UnusableError for pixels without a known range.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415  not needed where the cache holds the data

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise UnusableError("broken by pixels that are floats")
        if image.mode.startswith("I"):  # 16 bits, which convert() would clip to 8
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        image = image.convert("L" if grayscale else "RGB")
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(square, np.float32) / 255
    channels = pixels[np.newaxis] if grayscale else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(channels, np.float32)[np.newaxis]
