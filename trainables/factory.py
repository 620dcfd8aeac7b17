"""Import a user's own function by its dotted name, for `factory` data and `factory` models."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.errors import InputError


def load_factory(path: str) -> Callable[..., Any]:
    """Import `package.module:function`, also from the current folder.

    Raises InputError where the module is missing or fails, or holds no such function.
    """
    module_name, _, name = path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        # Last, so that a user's `queue.py` or `data.py` shadows nobody else's.
        sys.path.append(folder)
    importlib.invalidate_caches()  # the file may be younger than the last look at the folder
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"no module {error.name!r}, neither installed nor in {folder}", path
            ) from None
        raise InputError(f"importing it raised {told(error)}", path) from error
    except Exception as error:
        raise InputError(f"importing it raised {told(error)}", path) from error
    try:
        function = getattr(module, name)
    except AttributeError:
        raise InputError(f"module {module_name!r} has no {name!r}", path) from None
    if not callable(function):
        raise InputError(f"found {type(function).__name__}, allowed: a function", path)
    return function  # type: ignore[no-any-return]


def call_factory(path: str, /, *positional: Any, **keywords: Any) -> Any:
    """Import and call; an exception of the user's code becomes an InputError of one line."""
    function = load_factory(path)
    try:
        return function(*positional, **keywords)
    except Exception as error:
        raise InputError(f"raised {told(error)}", path) from error


def told(error: Exception) -> str:
    """Name an exception, its message and the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
