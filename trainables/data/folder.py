"""A user's folder of files: list it, recognise its kind, and hash its content only once."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.data.cache import replace_text
from trainables.data.source import Skipped, in_order, shown
from trainables.errors import InputError

Kind = Literal["audio", "images", "arrays"]

EXTENSIONS: dict[Kind, tuple[str, ...]] = {
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    "arrays": (".npy", ".npz", ".safetensors"),
}

_FRESH = 2.0  # seconds within which a file may change again without a new time stamp


@dataclass(frozen=True)
class Listing:
    """The files of one kind in a folder; or one file, in the folder that holds it."""

    where: str  # the path as given, for messages
    root: Path
    names: tuple[str, ...]  # relative to root, sorted
    closed: tuple[Skipped, ...]  # folders that may not be read

    def content(self, index: Path) -> str:
        """Hash names and contents of all files.

        A large folder is not read at every load: `index` remembers the hash for a list of names,
        sizes and times. The time of the last status change is among them because, unlike that of
        the last modification, no copying tool sets it back.
        """
        stats = [(name, _stat(self.root / name)) for name in self.names]
        listed = repr((str(self.root), stats, self.closed))
        entry = index / _digest(listed.encode("utf-8", "surrogatepass"))
        try:
            remembered = entry.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            remembered = ""
        if len(remembered) == 64:
            return remembered
        hashes = list(in_order(lambda name: _hash_file(self.root / name), self.names))
        named = [(os.fsencode(name), found) for name, found in zip(self.names, hashes, strict=True)]
        content = _digest(repr((named, self.closed)).encode("utf-8", "surrogatepass"))
        youngest = max((values[-1] for _, values in stats if values), default=0)
        if time.time_ns() - youngest > _FRESH * 1e9:
            replace_text(entry, content)
        return content


def list_files(path: str, kind: Kind) -> Listing:
    """List the files of a kind, recursively and through links; hidden ones are left out.

    Raises InputError where there is no such folder or no such file in it.
    """
    root = _existing(path)
    extensions = EXTENSIONS[kind]
    if root.is_file():
        if kind != "arrays":
            raise InputError(f"expected a folder of {kind}, found a file", shown(path))
        if root.suffix.lower() not in extensions:
            raise InputError(f"allowed: {allowed(kind)}", shown(path))
        return Listing(shown(path), root.parent, (root.name,), ())
    closed: list[Skipped] = []
    names = tuple(sorted(name for name in _walk(root, closed) if _has(name, extensions)))
    if not names:
        raise InputError(f"holds no {kind}; allowed: {allowed(kind)}", shown(path))
    return Listing(shown(path), root, names, tuple(closed))


def folder_kind(path: str | Path) -> Kind:
    """Tell the kind of data by the extensions in a folder, or of one arrays file.

    In a mixture the most frequent kind counts. Raises InputError where there is none.
    """
    root = _existing(str(path))
    names = [root.name] if root.is_file() else list(_walk(root, []))
    counts: Counter[Kind] = Counter()
    for kind, extensions in EXTENSIONS.items():
        counts[kind] = sum(_has(name, extensions) for name in names)
    kind, count = counts.most_common(1)[0]
    if count == 0 or (root.is_file() and kind != "arrays"):
        choices = "; ".join(allowed(kind) for kind in EXTENSIONS)
        raise InputError(
            "found no data; allowed: a folder of files of one kind "
            f"({choices}) or one file of the last kind",
            shown(str(path)),
        )
    return kind


def allowed(kind: Kind) -> str:
    """Say which files are of a kind."""
    return ", ".join(EXTENSIONS[kind])


def _existing(path: str) -> Path:
    root = Path(path).expanduser()
    try:
        root = root.resolve(strict=True)
        if root.is_dir():
            os.scandir(root).close()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", shown(path)) from None
    return root


def _walk(root: Path, closed: list[Skipped]) -> Iterator[str]:
    """Yield the files below root as relative names, each folder once even if links make a loop."""

    def refuse(error: OSError) -> None:
        name = os.path.relpath(error.filename, root)
        closed.append(Skipped(name, "unreadable folder", error.strerror or ""))

    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        found = Path(folder).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _has(name: str, extensions: tuple[str, ...]) -> bool:
    return name.lower().endswith(extensions)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _hash_file(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a file"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
