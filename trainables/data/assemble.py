"""From a source's named arrays to the files of a cache entry: check, split, normalise, cut.

Arrays are written to a scratch file as they are read and normalised from there, so the memory
needed is that of the largest file, not of the data set.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainables.config_data import Clips, DataConfig
from trainables.data.source import (
    NUMBERS,
    Piece,
    Skipped,
    Source,
    UnusableError,
    shown,
    skipped,
    skipped_line,
)
from trainables.data.split import Span, Unit, cut_clips, split_units
from trainables.errors import InputError

_BLOCK = 1 << 22  # values handled at once

Floats = NDArray[np.float32]


def assemble(source: Source, config: DataConfig, folder: Path) -> dict[str, Any]:
    """Write train.npy, heldout.npy and their clips into the folder; return the rest as JSON values.

    Raises InputError where nothing is usable or the arrays do not go together.
    """
    scratch = folder / "scratch"
    clip_frames = config.clip_frames if isinstance(config, Clips) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is skipped or harmless
        material = source.read()
        with scratch.open("wb") as file:
            units, left_out, shape = _gather(material.pieces, clip_frames, source.where, file)
    said = [*material.warnings]
    if left_out:
        said.append(skipped_line(left_out, len(units) + len(left_out)))
    if not units:
        detail = next((f" ({shown(one.detail)})" for one in left_out if one.detail), "")
        raise InputError(
            f"nothing usable: {said[-1]}{detail}; allowed: {source.usable}", source.where
        )
    whole = len(shape) > 1
    rows = sum(unit.span[1] for unit in units)
    raw = np.memmap(scratch, np.float32, "r", shape=(rows, *shape))
    try:
        train, heldout, split_warnings = split_units(
            units, config.heldout, config.split_seed, None if whole else clip_frames
        )
    except InputError as error:
        raise InputError(str(error), source.where) from None
    mean, std = _moments(raw, train)
    if std <= 1e-7 * abs(mean):  # no more than rounding
        raise InputError(f"all values to train on are {mean:g}", source.where)
    for name, spans in (("train", train), ("heldout", heldout)):
        _write_values(folder / f"{name}.npy", raw, spans, mean, std)
        lengths = [length for _, length in spans]
        starts, slack = cut_clips(lengths, 1 if whole or clip_frames is None else clip_frames)
        np.save(folder / f"{name}_starts.npy", starts)
        np.save(folder / f"{name}_slack.npy", slack if name == "train" else np.zeros_like(slack))
    del raw
    scratch.unlink()
    return {
        "clip_frames": None if whole else clip_frames,
        "example_shape": list(shape) if whole else [*shape, clip_frames],
        "mean": mean,
        "std": std,
        "warnings": [*said, *split_warnings],
        "details": {**material.details, "files": len({unit.file for unit in units})},
    }


def _gather(
    pieces: Iterable[Piece | Skipped], clip_frames: int | None, where: str, scratch: BinaryIO
) -> tuple[list[Unit], list[Skipped], tuple[int, ...]]:
    """Write the usable arrays to `scratch`; return them, the skipped ones and a row's shape."""
    units: list[Unit] = []
    left_out: list[Skipped] = []
    shape: tuple[int, ...] = ()
    rows = 0
    for piece in pieces:
        if isinstance(piece, Skipped):
            left_out.append(piece)
            continue
        try:
            _check(piece.values, clip_frames)
        except UnusableError as error:
            left_out.append(skipped(piece.name, error))
            continue
        if not units:
            shape = piece.values.shape[1:]
        elif piece.values.shape[1:] != shape:
            raise InputError(
                f"{shown(units[0].name)} is {_written(shape)} and {shown(piece.name)} is "
                f"{_written(piece.values.shape[1:])}; all must agree",
                where,
            )
        for block in _blocks(piece.values, [(0, len(piece.values))]):
            scratch.write(np.ascontiguousarray(block, np.float32).data)
        units.append(Unit(piece.file, piece.name, (rows, len(piece.values))))
        rows += len(piece.values)
    return units, left_out, shape


def _check(values: np.ndarray[Any, Any], clip_frames: int | None) -> None:
    """Raise UnusableError for an array that is no sequence [frames, C] and no items [n, C, ...]."""
    if values.dtype.kind not in NUMBERS:
        raise UnusableError("not of numbers")
    if values.ndim not in (2, 3, 4):
        raise UnusableError("not of 2 to 4 axes")
    if values.size == 0:
        raise UnusableError("empty")
    if values.ndim == 2 and clip_frames is not None and len(values) < clip_frames:
        raise UnusableError(f"shorter than a clip of {clip_frames} frames")
    with np.errstate(over="ignore"):
        for block in _blocks(values, [(0, len(values))]):
            if not np.isfinite(np.asarray(block, np.float32)).all():
                raise UnusableError("broken by values that are not finite")


def _written(shape: tuple[int, ...]) -> str:
    rows = "frames" if len(shape) == 1 else "n"
    return f"[{rows}, {', '.join(map(str, shape))}]"


def _blocks(values: np.ndarray[Any, Any], spans: Sequence[Span]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the rows of the spans in blocks that fit in memory."""
    step = max(1, _BLOCK // max(1, int(np.prod(values.shape[1:]))))
    for start, length in spans:
        for first in range(start, start + length, step):
            yield values[first : min(first + step, start + length)]


def _moments(raw: Floats, spans: Sequence[Span]) -> tuple[float, float]:
    """Return mean and standard deviation of all values in the spans."""
    count = sum(length for _, length in spans) * int(np.prod(raw.shape[1:]))
    mean = sum(float(block.sum(dtype=np.float64)) for block in _blocks(raw, spans)) / count
    squares = (float(np.square(block - np.float64(mean)).sum()) for block in _blocks(raw, spans))
    return mean, float(np.sqrt(sum(squares) / count))


def _write_values(path: Path, raw: Floats, spans: Sequence[Span], mean: float, std: float) -> None:
    """Write the normalised rows of the spans, one span after another, as a .npy file.

    By plain writes: into a mapped file, a full disk would be a fatal signal instead of an error.
    """
    shape = (sum(length for _, length in spans), *raw.shape[1:])
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in _blocks(raw, spans):
            file.write(((block - np.float64(mean)) / std).astype("<f4").data)
