"""`load_dataset`: from a trial's data block to the arrays that its batches are drawn from."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config_data import DataConfig
from trainables.data import arrays, audio, digits, factory, images, synthetic
from trainables.data.assemble import assemble
from trainables.data.cache import FORMAT, default_cache, fetch
from trainables.data.source import Source

_SOURCES: dict[str, Callable[[Any, Path], Source]] = {
    "synthetic": synthetic.open_source,
    "digits": digits.open_source,
    "audio": audio.open_source,
    "images": images.open_source,
    "arrays": arrays.open_source,
    "factory": factory.open_source,
}

_recent: OrderedDict[tuple[str, ...], Dataset] = OrderedDict()
_KEPT = 2


@dataclass(frozen=True, eq=False)
class Split:
    """One side of the split, and where its examples lie.

    Example i of clips is `values[s : s + clip_frames].T` with s = `starts[i]` plus anything in
    [0, `slack[i]`]; example i of whole items is `values[starts[i]]`.
    """

    values: NDArray[np.float32]  # normalised [frames, C], or [n, C, *spatial]; read-only, mapped
    starts: NDArray[np.int64]  # [n] first frame of each clip, or the item
    slack: NDArray[np.int64]  # [n] frames by which a clip may start later; 0 if held out or items

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.starts)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out data, normalised by one mean and one standard deviation."""

    train: Split
    heldout: Split
    clip_frames: int | None  # None for whole items
    example_shape: tuple[int, ...]  # (C, T) or (C, H, W)
    mean: float  # over all values of the training side, before normalisation
    std: float
    fingerprint: str  # hash of content and settings; equal data has an equal one anywhere
    warnings: tuple[str, ...]  # lines for the user
    details: dict[str, Any]  # plain values: for audio, all that an inversion would need


def load_dataset(config: DataConfig, cache: Path | None = None) -> Dataset:
    """Load the data of a trial, prepared on first use and from the cache afterwards.

    An equal config in the same process gets the same object, whatever happened to the files in
    between: data does not change under running trials. Raises InputError, one line, for data
    that is missing or unusable.
    """
    root = cache or default_cache()
    key = (repr(config), str(root), str(Path.cwd()))
    if key in _recent:
        _recent.move_to_end(key)
        return _recent[key]
    _recent[key] = _load(config, root)
    while len(_recent) > _KEPT:
        _recent.popitem(last=False)
    return _recent[key]


def _load(config: DataConfig, root: Path) -> Dataset:
    source = _SOURCES[config.kind](config, root / "index")
    fingerprint = _fingerprint(source, config)
    folder, meta = fetch(root, fingerprint, partial(assemble, source, config))
    return Dataset(
        train=_split(folder, "train"),
        heldout=_split(folder, "heldout"),
        clip_frames=meta["clip_frames"],
        example_shape=tuple(meta["example_shape"]),
        mean=meta["mean"],
        std=meta["std"],
        fingerprint=fingerprint,
        warnings=tuple(meta["warnings"]),
        details=meta["details"],
    )


def _fingerprint(source: Source, config: DataConfig) -> str:
    # Where the data lies is left out: what it is counts.
    settings = config.model_dump(mode="json", exclude={"path", "factory", "arguments"})
    content = json.dumps([FORMAT, source.content, settings], sort_keys=True)
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def _split(folder: Path, name: str) -> Split:
    return Split(
        values=np.load(folder / f"{name}.npy", mmap_mode="r"),
        starts=np.load(folder / f"{name}_starts.npy"),
        slack=np.load(folder / f"{name}_slack.npy"),
    )
