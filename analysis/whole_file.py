"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from analysis.errors import RunError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside `path` and put it in its place; folders are made as needed.

    Raises RunError where that cannot be done, except for want of space, which stays an OSError.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
