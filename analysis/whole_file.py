"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from analysis.errors import RunError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a new name beside `path` to write to; what is written there then takes its place.

    Where that fails, also for want of space, nothing is left beside it.
    """
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # of a crash, or a link to somewhere else
    try:
        yield part
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; folders are made as needed.

    Raises RunError where that cannot be done, except for want of space, which stays an OSError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_bytes(content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
