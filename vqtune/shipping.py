"""What workers of a joined cluster are sent: vqtune's packages, and the user's own modules.

So the nodes need the dependencies alone, and all of them train with the code that the driver has.
Ray's runtime environment carries the files; a cluster of one's own on this machine needs none.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from trainables.errors import InputError

PACKAGES = ("vqtune", "trainables", "analysis", "search_spaces")

# Neither bytes of another Python nor anybody's history.
EXCLUDED = ("__pycache__/", "*.pyc", ".git/")

_MOST_BYTES = 100 * 2**20


def shipped(factories: set[str]) -> dict[str, Any]:
    """The part of Ray's runtime environment that carries code, for these `package.module:function`.

    Raises:
        InputError: a package that is too large to be sent.
    """
    modules = [str(place) for place in (*_own(), *user_modules(factories))]
    return {"py_modules": modules, "excludes": list(EXCLUDED)}


def factories(*values: Any) -> set[str]:
    """Every `package.module:function` under a key `factory`, however deep in plain values."""
    return {found for value in values for found in _factories(value, inside=False)}


def user_modules(factories: set[str]) -> list[Path]:
    """Files and package folders that these come from, where they are the user's own.

    Those are found in the current folder or in PYTHONPATH, not installed; what they import from
    there comes along, the rest of the folders does not.
    """
    folders = _folders()
    # Where Python would look: what is installed comes before the current folder.
    path = [*sys.path, *map(str, folders)]
    left = sorted({factory.partition(":")[0].partition(".")[0] for factory in factories})
    found: dict[str, Path | None] = dict.fromkeys(PACKAGES)
    while left:
        name = left.pop()
        place = _place(name, path) if name not in found else None
        found.setdefault(name, place if place and place.parent.resolve() in folders else None)
        if found[name] is not None and place is not None:
            left.extend(_imported(place))
    places = [place for place in found.values() if place is not None]
    for place in places:
        _check_size(place)
    return places


def _own() -> Iterator[Path]:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        yield Path(spec.origin).parent


def _folders() -> list[Path]:
    """Where a user's own modules stand."""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [path.resolve() for path in (Path.cwd(), *map(Path, filter(None, named)))]


def _place(name: str, path: list[str]) -> Path | None:
    """The file or the folder of a top-level module."""
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(name, path)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    # What is compiled is built for one machine, and Ray sends no such file by itself.
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _imported(place: Path) -> set[str]:
    """Top-level modules that a file or the files of a package import; read, not run."""
    names: set[str] = set()
    for file in [place] if place.is_file() else place.rglob("*.py"):
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, ValueError, SyntaxError):
            continue  # what is wrong with it is told where it is imported
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def _check_size(place: Path) -> None:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > _MOST_BYTES:
        raise InputError(
            f"{size / 2**20:.0f} MiB are too much to send to the nodes; allowed: "
            f"{_MOST_BYTES / 2**20:.0f} MiB of modules, with data in a folder of its own",
            str(place),
        )


def _factories(value: Any, inside: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _factories(inner, inside or key == "factory")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _factories(inner, inside)
    elif inside and isinstance(value, str) and ":" in value:
        yield value
