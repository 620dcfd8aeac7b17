"""Writing to a storage that may be away for a while: a share that is remounted, a server restarted.

A full disk is not waited for: it does not empty itself, and holding a cluster does not help.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

# How long to wait, in seconds: a file server's restart, not a night.
PATIENCE = 300.0
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

Result = TypeVar("Result")


class StorageError(OSError):
    """A run's folder cannot be written to: its disk is full, or it was away for too long."""


def patiently(
    work: Callable[[], Result],
    where: object,
    waiting: Callable[[OSError], None] | None = None,
    patience: float | None = None,
) -> Result:
    """Do what reads or writes files of a run; again and again where the storage is away.

    Args:
        work: may be done twice, also where the first time it came halfway.
        where: what an error names that names no file itself.
        waiting: told once, with the first error, where there is something to wait for.
        patience: seconds; PATIENCE where none are given.

    Raises:
        StorageError: the disk is full, or it was away for all that time.
    """
    end, pause = None, _FIRST_PAUSE
    while True:
        try:
            return work()
        except OSError as error:
            if end is None:
                end = time.monotonic() + (PATIENCE if patience is None else patience)
                if waiting is not None and error.errno not in FULL:
                    waiting(error)
            if error.errno in FULL or time.monotonic() > end:
                place = error.filename or str(where)
                raise StorageError(error.errno, error.strerror, place) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
