"""From nested mappings to the columns of a table, and from a table's rows back to mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def flatten(values: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """Key the leaves of nested mappings by their joined paths; lists are leaves, as tuples."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, separator, path + separator)
        else:
            flat[path] = tuple(value) if isinstance(value, list) else value
    return flat


def parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name a nested config's values as in `config.codebook.size`.

    A null is a technique that is off or a value left to the data, and is left out. A technique
    that is on and has no parameters, such as `config.codebook.cosine`, is True.
    """
    flat = flatten(config, ".", "config.")
    for name, block in config.get("codebook", {}).items():
        if isinstance(block, Mapping) and not block:
            flat[f"config.codebook.{name}"] = True
    return {path: value for path, value in flat.items() if value is not None}


def row_dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as a mapping of column names to values."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
