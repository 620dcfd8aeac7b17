"""`arrays`: .npy, .npz and .safetensors files; never a pickle, which could run code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config_data import ArraysData
from trainables.data.folder import allowed, list_files
from trainables.data.source import Material, Piece, Skipped, Source, check_file, skipped


def open_source(config: ArraysData, index: Path) -> Source:
    """List and hash the file or folder. Raises InputError where it holds no arrays."""
    listing = list_files(config.path, "arrays")

    def pieces() -> Iterator[Piece | Skipped]:
        yield from listing.closed
        for name in listing.names:
            yield from _read_file(listing.root / name, name)

    return Source(
        listing.where, listing.content(index), allowed("arrays"), lambda: Material(pieces(), {})
    )


def _read_file(path: Path, name: str) -> Iterator[Piece | Skipped]:
    """Yield the arrays of a file, or what is wrong with it or with one of them."""
    reader = {".npy": _read_npy, ".npz": _read_npz}.get(path.suffix.lower(), _read_safetensors)
    try:
        check_file(path)
        yield from reader(path, name)
    except Exception as error:
        yield skipped(name, error)


def _read_npy(path: Path, name: str) -> Iterator[Piece | Skipped]:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":  # or numpy would go on to try zip and pickle
            raise ValueError("no .npy file")
    yield Piece(name, name, np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npz(path: Path, name: str) -> Iterator[Piece | Skipped]:
    with np.load(path, allow_pickle=False) as archive:
        yield from _each(name, archive.files, archive.__getitem__)


def _read_safetensors(path: Path, name: str) -> Iterator[Piece | Skipped]:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(path, framework="pt") as archive:  # numpy has no bfloat16
        yield from _each(name, archive.keys(), lambda key: archive.get_tensor(key).float().numpy())


def _each(
    file: str, keys: Iterable[str], read: Callable[[str], np.ndarray[Any, Any]]
) -> Iterator[Piece | Skipped]:
    """Yield the arrays of one file, named file:key; one that cannot be read spares the others."""
    for key in sorted(keys):
        name = f"{file}:{key}"
        try:
            yield Piece(file, name, read(key))
        except Exception as error:
            yield skipped(name, error)
