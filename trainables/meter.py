"""What a piece of training took."""

from __future__ import annotations

import time


class Meter:
    """Measures wall time and the CPU time of all threads, in seconds, from when it is made."""

    def __init__(self) -> None:
        """Begin."""
        self._started, self._worked = time.monotonic(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self._started

    @property
    def cpu_seconds(self) -> float:
        """CPU time so far."""
        return time.process_time() - self._worked
