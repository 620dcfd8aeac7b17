"""The cache on disk: data is prepared once for all processes of a node, and read by mapping.

An entry is a folder that appears whole, by a rename, or not at all; the lock beside it makes
one process build while the others wait. Set `VQTUNE_CACHE` to move it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables.errors import InputError

#: Part of every fingerprint: raise it when the same files and settings shall give other values.
FORMAT = 1

_META = "meta.json"


def default_cache() -> Path:
    """Return `$VQTUNE_CACHE`, else `$XDG_CACHE_HOME/vqtune`, else `~/.cache/vqtune`."""
    if own := os.environ.get("VQTUNE_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "vqtune"
    return Path.home() / ".cache" / "vqtune"


def fetch(root: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> tuple[Path, Any]:
    """Return the entry's folder and what `build` returned; builds it if missing or damaged.

    `build` writes files into the folder that it is given and returns plain JSON values.
    Raises InputError where the cache cannot be written.
    """
    entry = root / "datasets" / key
    found = _read(entry)
    if found is not None:
        return entry, found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f"{key}.lock")):
            found = _read(entry)  # another process may have built it while this one waited
            if found is None:
                _build(entry, build)
                found = _read(entry)
    except OSError as error:
        raise InputError(
            f"cannot hold the prepared data: {error.strerror or error}; "
            "VQTUNE_CACHE may name another folder",
            str(root),
        ) from error
    return entry, found


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all; where that is impossible, do without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def _read(entry: Path) -> Any:
    """Return what the entry's builder returned; None if a file is missing, cut or unreadable."""
    try:
        meta = json.loads((entry / _META).read_text(encoding="ascii"))
        sizes = {name: (entry / name).stat().st_size for name in meta["sizes"]}
        return meta["built"] if sizes == meta["sizes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(entry: Path, build: Callable[[Path], dict[str, Any]]) -> None:
    # The lock is held, so what lies here was left by a process that was killed.
    draft = entry.with_name(f"{entry.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()
        built = build(draft)
        sizes = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
        meta = json.dumps({"sizes": sizes, "built": built}, allow_nan=False)
        (draft / _META).write_text(meta, encoding="ascii")
        for path in draft.iterdir():
            _flush(path)
        shutil.rmtree(entry, ignore_errors=True)  # a damaged one
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _flush(path: Path) -> None:
    """Write out the file before the rename, or a power cut could leave zeros of the right size."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
