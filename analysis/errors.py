"""The one exception for a run folder that will not do: a single line that says what and where."""

from __future__ import annotations


class RunError(ValueError):
    """A run that is missing or cannot be read; `str()` is one line fit to be printed as it is."""

    def __init__(self, message: str) -> None:
        """Fold `message` into one line."""
        super().__init__(" ".join(message.split()))
