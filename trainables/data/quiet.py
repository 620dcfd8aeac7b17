"""Silence for the mp3 decoder, which writes notes on broken files straight to standard error."""

from __future__ import annotations

import os
from threading import Lock
from types import TracebackType


class QuietStderr:
    """A context in which nothing reaches file descriptor 2; threads may be in it together.

    State: how many are inside, and the real descriptor while there are any.
    """

    def __init__(self) -> None:
        """Start with nobody inside."""
        self._lock = Lock()
        self._inside = 0
        self._real: int | None = None

    def __enter__(self) -> None:
        """Mute for the first that comes in."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                try:
                    self._real = os.dup(2)
                except OSError:  # closed, so that there is nothing to mute
                    return
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore for the last that goes out."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._real is not None:
                os.dup2(self._real, 2)
                os.close(self._real)
                self._real = None
