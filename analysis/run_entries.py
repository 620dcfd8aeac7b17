"""What may be in a run's folder, so that nothing outside of it is read or written by its names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from analysis.errors import RunError

# Runs and trials are called so; folders and files are named after them.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Of the run's own W&B folder, whose links to logs elsewhere W&B makes for itself.
_WANDB = "wandb"


def check_entries(run: Path) -> None:
    """Raise RunError where a run has an entry that is no file, no folder and no link inside of it.

    A link would lead reading and writing to where it points, a pipe would be waited for. The run's
    folder may itself be a link, but not be called what would do something to a terminal.
    """
    root = run.resolve()
    if not root.name.isprintable():
        raise RunError(f"{root}: found {root.name!r}; allowed: a name that can be printed")
    for entry in _entries(run):
        if entry.is_symlink():
            inner = Path(entry.path).relative_to(run).parts
            if (len(inner) == 1 or inner[0] != _WANDB) and not _leads_inside(entry.path, root):
                raise RunError(f"{entry.path}: is a link that leads out of the run; allowed: none")
        elif not entry.is_dir() and not entry.is_file():
            raise RunError(f"{entry.path}: is neither a file nor a folder; allowed: these")


def _entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # gone by now, or not to be read; who needs it will say so
        return
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)


def _leads_inside(link: str, root: Path) -> bool:
    try:
        return Path(link).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link to itself
        return False
