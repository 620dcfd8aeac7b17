"""Results that a benchmark keeps line by line, so that the same command goes on where it ended."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[Any]:
    """What every whole line holds; after one that was cut short a new line begins."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    found = []
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found
