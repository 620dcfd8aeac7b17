"""The one exception for bad input: a line that says what, where and what is allowed."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from the user; `str()` is one line fit to be printed as it is."""

    def __init__(self, message: str, where: str | None = None) -> None:
        """Join `where` (a file, a key path) and `message` into one line."""
        line = " ".join(message.split())
        super().__init__(f"{where}: {line}" if where else line)
