"""The one exception for bad input: a line that says what, where and what is allowed."""

from __future__ import annotations

# Whatever a message repeats, nobody reads more than its beginning and its end.
_LONGEST = 2000


class InputError(ValueError):
    """Bad input from the user; `str()` is one line fit to be printed as it is."""

    def __init__(self, message: str, where: str | None = None) -> None:
        """Join `where` (a file, a key path) and `message` into one line."""
        super().__init__(one_line(f"{where}: {message}" if where else message))


def named(error: BaseException) -> str:
    """An exception's kind and message, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def one_line(text: str) -> str:
    """Text as a line that cannot do anything to a terminal, and is not too long."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
