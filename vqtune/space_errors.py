"""The one-line messages of search spaces: key path, what was found, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trainables.errors import InputError


def refusal(name: str, found: str, allowed: str) -> InputError:
    """Say in one line what will not do at a key path."""
    return InputError(f"{name}: found {found}; allowed: {allowed}")


def check_keys(raw: Mapping[Any, Any], allowed: Iterable[str], name: str = "") -> None:
    """Refuse a key that is not among those allowed, and name the nearest that is."""
    allowed = list(allowed)
    for key in raw:
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            path = f"{name}.{key}" if name else str(key)
            raise refusal(path, "an unknown key", ", ".join(allowed) + hint)


def check_shapes(raw: Mapping[str, Any], mappings: Iterable[str]) -> None:
    """Refuse a value that is not a mapping, or for all other keys not a string."""
    for key, value in raw.items():
        if key in mappings and not isinstance(value, dict):
            raise refusal(key, shown(value), "a mapping")
        if key not in mappings and not isinstance(value, str):
            raise refusal(key, shown(value), "a string")


def did_you_mean(found: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` where something allowed is spelt much like what was found."""
    near = difflib.get_close_matches(str(found), list(allowed), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """Quote a value, shortened to fit a line."""
    if isinstance(value, dict):
        return "a mapping"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the file, or whatever else the input came from, before the message."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error), where) from None
