"""The one exception for a run folder that will not do: a single line that says what and where."""

from __future__ import annotations

# Whatever a message repeats, nobody reads more than its beginning and its end.
_LONGEST = 2000


class RunError(ValueError):
    """A run that is missing or cannot be read; `str()` is one line fit to be printed as it is."""

    def __init__(self, message: str) -> None:
        """Fold `message` into one line."""
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Text as a line that cannot do anything to a terminal, and is not too long."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    return printable(line)


def printable(text: str) -> str:
    """Text without the characters that could do something to a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
