"""Files at a URI, such as s3://bucket/folder: whatever pyarrow or fsspec can write to.

What goes wrong there is an OSError, whoever raised it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trainables.errors import InputError, named

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem  # type: ignore[import-untyped]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.+")
# Where a file grows while it is written; elsewhere it appears when it is whole.
_GROWING = ("local", "hdfs")


def is_uri(text: str) -> bool:
    """Whether this names a place by a URI, not a folder of this machine."""
    return _URI.fullmatch(text) is not None


def below(uri: str, name: str) -> str:
    """The URI of what is called so inside a folder; options after a `?` stay at the end."""
    place, mark, options = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{options}"


class Remote:
    """A folder at a URI."""

    def __init__(self, uri: str) -> None:
        """Find who can write there; nothing is asked of the place itself yet.

        Raises:
            InputError: nobody can, or the URI holds a password.
        """
        parts = urlsplit(uri)
        if parts.username or parts.password:
            raise InputError(
                "found a URI with a key in it, which would be seen in logs; allowed: one without, "
                "with the key in the environment or a profile",
                f"{parts.scheme}://",
            )
        self.uri = uri
        self._fs, self._root = _filesystem(uri)

    def upload(self, source: Path, name: str, own: str = "") -> None:
        """Write a file, whole or not at all.

        Where several may write it at the same time, `own` is each one's own word.
        """
        target = f"{self._root}/{name}"
        with _told():
            growing = self._fs.type_name in _GROWING
            if growing:
                self._fs.create_dir(target.rpartition("/")[0], recursive=True)
            there = f"{target}{own}.part" if growing else target
            with source.open("rb") as file, self._fs.open_output_stream(there) as out:
                shutil.copyfileobj(file, out, 1 << 20)
            if growing:
                self._fs.move(there, target)

    def download(self, name: str, target: Path) -> bool:
        """Write a file here, whole or not at all; False where there is none."""
        part = target.with_name(target.name + ".part")
        with _told():
            try:
                stream = self._fs.open_input_stream(f"{self._root}/{name}")
            except FileNotFoundError:
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream as file, part.open("wb") as out:
                shutil.copyfileobj(file, out, 1 << 20)
        part.replace(target)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with _told():
            try:
                self._fs.delete_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return

    def sizes(self) -> dict[str, int]:
        """All files below, by name, with their sizes; none where there is no such folder."""
        from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        with _told():
            found = self._fs.get_file_info(selector)
        return {
            info.path.removeprefix(f"{self._root}/"): info.size
            for info in found
            if info.type == FileType.File and not info.path.endswith(".part")
        }


def _filesystem(uri: str) -> tuple[FileSystem, str]:
    # Here, since most runs have no URI and should not wait for it.
    import pyarrow  # type: ignore[import-untyped]  # noqa: PLC0415
    from pyarrow import fs  # noqa: PLC0415

    try:
        found, path = fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        try:
            import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

            other, path = fsspec.core.url_to_fs(uri)
        except Exception as second:  # of whatever package is behind the scheme
            told = " ".join(str(second).split()) if isinstance(second, ImportError) else first
            raise InputError(
                f"{told}; allowed: a folder, or a URI that pyarrow or an installed fsspec package "
                "can write to, such as s3://BUCKET/FOLDER",
                uri,
            ) from None
        found = fs.PyFileSystem(fs.FSSpecHandler(other))
    return found, path.rstrip("/")


def reason_of(error: OSError) -> str:
    """The error in a few words."""
    return " ".join(str(error.strerror or error).split())[:300]


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of whatever package is behind the scheme
        raise OSError(0, named(error)) from error
