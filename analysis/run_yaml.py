"""YAML as a run holds it: plain values alone, whoever has written it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from analysis.errors import RunError
from analysis.regular_file import read_regular

# No spec comes near these.
_MOST_VALUES = 100_000
_MOST_BYTES = 2 * 2**20


class _Loader(yaml.SafeLoader):
    """SafeLoader that knows no merge, which no spec has, and which could multiply without end."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Nothing."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file of a run holds; raises RunError where it holds none."""
    try:
        text = read_regular(path, _MOST_BYTES).decode()
        values = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # PyYAML raises nearly anything at a value that belies its tag
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RunError(f"{path}: not valid YAML: {problem}{line}") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: expected a mapping, {_found(values, text)}")
    if _more_than(values, _MOST_VALUES):
        raise RunError(f"{path}: holds more than {_MOST_VALUES:,} values, aliases told out")
    return values


def _found(values: Any, text: str) -> str:
    """What there is where a mapping should be, as the end of a sentence."""
    if values is not None:
        return f"found {type(values).__name__}"
    return "found null" if text.strip() else "but the file is empty"


def _more_than(values: Any, most: int) -> bool:
    """Whether nested values are more than `most`; a few lines of aliases can stand for billions."""
    left, seen = [values], 0
    while left:
        value = left.pop()
        seen += 1
        if seen + len(left) > most:
            return True
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False
