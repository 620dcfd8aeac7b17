"""Files that may be anything: read whole if they are files, and no larger than can be.

A pipe would be waited for, a device would fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: no such file, something else under its name, or more than that.
    """
    # Without this a pipe is waited for until somebody writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"Larger than {most:,} bytes", str(path))
        return file.read(most)
