"""`factory`: arrays that a user's own function returns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config_data import FactoryData
from trainables.data.source import NUMBERS, Material, Piece, Source
from trainables.errors import InputError
from trainables.factory import call_factory


def open_source(config: FactoryData, index: Path) -> Source:
    """Call the function, since only what it returns tells the content.

    Raises InputError where it cannot be imported, fails, or returns anything but {name: array}.
    """
    arrays = _arrays(call_factory(config.factory, **config.arguments), config.factory)

    def read() -> Material:
        return Material([Piece(name, name, values) for name, values in arrays.items()], {})

    return Source(config.factory, _content(arrays), "arrays of numbers of 2 to 4 axes", read)


def _arrays(returned: Any, where: str) -> dict[str, np.ndarray[Any, Any]]:
    if not isinstance(returned, Mapping) or not returned:
        found = "an empty mapping" if returned == {} else type(returned).__name__
        raise InputError(f"returned {found}, allowed: a mapping of names to arrays", where)
    arrays = {}
    for name in sorted(returned, key=str):
        values = returned[name]
        if not isinstance(name, str) or not hasattr(values, "__array__"):
            raise InputError(
                f"returned {type(values).__name__} under {name!r}, allowed: arrays under strings",
                where,
            )
        try:
            arrays[name] = np.asarray(values)
        except Exception as error:  # such as a tensor on a GPU or with a gradient
            raise InputError(f"returned under {name!r} no plain array: {error}", where) from error
        if arrays[name].dtype.kind not in NUMBERS:
            raise InputError(
                f"returned {arrays[name].dtype} under {name!r}, allowed: real numbers", where
            )
    return arrays


def _content(arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for name, values in arrays.items():
        digest.update(repr((name, values.dtype.str, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
