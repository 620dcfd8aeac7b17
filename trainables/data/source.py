"""What every kind of data hands to `assemble`: named arrays, and the names of what was skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_NAMED = 20  # skipped files that are named, of each reason
NUMBERS = "fiub"  # the kinds of dtype that become float32

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Piece:
    """One named array; pieces of one file stay on one side of the split."""

    file: str
    name: str
    values: np.ndarray[Any, Any]  # a sequence [frames, C], or items [n, C, T] or [n, C, H, W]


@dataclass(frozen=True)
class Skipped:
    """A file or array that cannot be used."""

    name: str
    reason: str  # a word or two, by which the warning counts
    detail: str = ""  # what the reader said


class UnusableError(Exception):
    """Raised by the reader of a file for what is wrong with it, in a word or two."""


@dataclass(frozen=True)
class Material:
    """An opened source; iterating over `pieces` reads the files, in the order of their names."""

    pieces: Iterable[Piece | Skipped]
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where data comes from, before anything but its content hash is known."""

    where: str  # for messages
    content: str  # hash of all that `read` depends on, settings of the config aside
    usable: str  # what could have been used, for the error where nothing can
    read: Callable[[], Material]


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Map with a few threads; results keep the order of the items, and few are held at a time."""
    workers = min(4, os.cpu_count() or 1)
    ahead = 8 * workers
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), ahead):
            yield from pool.map(function, items[start : start + ahead])


def read_files(
    root: Path, names: Sequence[str], read: Callable[[Path], np.ndarray[Any, Any]]
) -> Iterator[Piece | Skipped]:
    """Read one array from every file; a file whose reader raises is skipped."""

    def one(name: str) -> Piece | Skipped:
        path = root / name
        try:
            check_file(path)
            return Piece(name, name, read(path))
        except Exception as error:
            return skipped(name, error)

    return in_order(one, names)


def check_file(path: Path) -> None:
    """Raise UnusableError for what no reader should be tried on."""
    if not path.is_file():  # a dangling link; or a pipe, which would block for ever
        raise UnusableError("broken")
    if path.stat().st_size == 0:
        raise UnusableError("empty")


def skipped(name: str, error: Exception) -> Skipped:
    """Say why a file was skipped: decoders raise nearly anything at bytes they do not expect."""
    if isinstance(error, UnusableError):
        return Skipped(name, str(error))
    return Skipped(name, "broken", f"{type(error).__name__}: {error}")


def shown(name: str) -> str:
    """Make a name fit for one line of any terminal: controls and undecodable bytes escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in name
    )


def skipped_line(skipped: Sequence[Skipped], total: int) -> str:
    """Name what was skipped in one line: counts by reason, and their names."""
    parts = []
    for reason in sorted({one.reason for one in skipped}):
        names = [shown(one.name) for one in skipped if one.reason == reason]
        more = len(names) - _NAMED
        some = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{len(names)} {reason} ({some})")
    return f"skipped {len(skipped)} of {total}: " + "; ".join(parts)
