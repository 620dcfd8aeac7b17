"""Files as a mistake, a crash or an enemy leaves them, made the same on every run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Damage = Callable[[Path], None]

# What is never one of the values of a config, a space or a record, whatever stands in its place.
_STRANGE: tuple[Any, ...] = ([[]], {"x": {"y": []}}, "\x1b]0;owned\x07", {"kind": "nothing"})
_HUGE = (10**30, -(10**30), 10**4000, float("inf"), float("nan"))


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def pickled(marker: Path) -> bytes:
    """A pickle that would make the marker."""
    return pickle.dumps(Bomb(marker))


def torch_file(marker: Path) -> bytes:
    """A file as torch.save writes them, whose pickle would make the marker."""
    file = io.BytesIO()
    torch.save({"a": Bomb(marker)}, file)
    return file.getvalue()


def tagged(marker: Path) -> str:
    """YAML that would make the marker."""
    return f"""parameters: !!python/object/apply:os.system ["touch '{marker}'"]\n"""


def _write(content: bytes | str) -> Damage:
    raw = content.encode() if isinstance(content, str) else content

    def write(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(raw)

    return write


def _instead(make: Callable[[Path], None]) -> Damage:
    def write(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return write


def _socket(path: Path) -> None:
    # The name of a socket may not be long, so as seen from its folder.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _sparse(path: Path) -> None:
    """A terabyte, as far as anybody can tell who reads it."""
    with path.open("wb") as file:
        file.truncate(2**40)


# No file at all, or none to be read: these end every command whose input they are.
NO_FILES: dict[str, Damage] = {
    "gone": _instead(lambda path: None),
    "folder": _instead(Path.mkdir),
    "fifo": _instead(os.mkfifo),
    "socket": _instead(_socket),
    "endless device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "null device": _instead(lambda path: path.symlink_to("/dev/null")),
    "dangling link": _instead(lambda path: path.symlink_to("/nowhere/at/all")),
    "link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "terabyte": _instead(_sparse),
}
# Text in the place of YAML or JSON.
NO_TEXTS: dict[str, Damage] = {
    "empty": _write(""),
    "zeros": _write(bytes(4096)),
    "noise": _write(random.Random(0).randbytes(4096)),
    "not UTF-8": _write(b"description: caf\xe9\n"),
    "UTF-16": _write("description: x\n".encode("utf-16")),
    "NUL in text": _write("description: a\0b\n"),
    "escapes": _write("\x1b[2J\x1b]0;owned\x07: 1\n"),
    "list": _write("- 1\n- 2\n"),
    "word": _write("codebook\n"),
    "number": _write("1e400\n"),
    "nan": _write(".nan\n"),
    "digits": _write("9" * 100_000),
    "huge integer as a key": _write("?" + "9" * 5_000 + ": 1\n"),
    "deep lists": _write("a: " + "[" * 50_000),
    "deep whole lists": _write("a: " + "[" * 900 + "]" * 900),
    "deep mappings": _write("a: " + '{"a": ' * 50_000),
    "deep blocks": _write("".join(" " * i + "a:\n" for i in range(2_000))),
    "alias bomb": _write(
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )
    ),
    "merge bomb": _write(
        "a: &a {x: 1}\n"
        + "".join(
            f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )
    ),
    "recursive alias": _write("parameters: &a {a: *a}\n"),
    "recursive list": _write("parameters: &a [*a]\n"),
    "unknown alias": _write("parameters: *nobody\n"),
    "unknown tag": _write("parameters: !nobody 1\n"),
    "python name": _write("parameters: !!python/name:os.system\n"),
    "python module": _write("parameters: !!python/module:os\n"),
    "binary": _write("parameters: !!binary 'gA=='\n"),
    "set": _write("parameters: !!set {a, b}\n"),
    "timestamp": _write("parameters: !!timestamp 2024-99-99\n"),
    "key twice": _write("seed: 1\nseed: 2\n"),
    "two documents": _write("seed: 1\n---\nseed: 2\n"),
    "directive": _write("%YAML 9.9\n---\nseed: 1\n"),
    "tab": _write("parameters:\n\tseed: 1\n"),
    "key of a list": _write("? [1, 2]\n: 3\n"),
    "key of nothing": _write("? \n: 3\n"),
    "megabytes of text": _write("description: '" + "x" * 8_000_000 + "'\n"),
    "megabytes of keys": _write("".join(f"k{i}: 1\n" for i in range(700_000))),
}


def truncated(rng: random.Random) -> Damage:
    """Half of the same values, written so that no beginning of them is whole."""

    def cut(path: Path) -> None:
        raw = path.read_bytes().lstrip()
        path.write_bytes(raw[: rng.randrange(1, len(raw) - 1)])

    return cut


# --- values of another type, somewhere ------------------------------------------------------------


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in nested ones."""
    if path:
        yield path
    pairs = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values)
        if isinstance(values, list)
        else ()
    )
    for key, value in pairs:
        yield from places(value, (*path, key))


def at(values: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        values = values[key]
    return values


def put(values: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put a value at a path."""
    at(values, path[:-1])[path[-1]] = value


def strange(rng: random.Random, instead_of: Any) -> Any:
    """A value of a type, or a size, that cannot stand for this one."""
    others: list[Any] = list(_STRANGE)
    if isinstance(instead_of, (int, float)):
        others += _HUGE
    elif isinstance(instead_of, str):  # in a space, a number stands for what is not searched
        others += [7, 1e300]
    return rng.choice(others)


def as_json(values: Any) -> str:
    """JSON that YAML reads, too; numbers of any size, and NaN as YAML has it."""
    text = json.dumps(values).replace("NaN", ".nan").replace("-Infinity", "-.inf")
    return text.replace("Infinity", ".inf")


# --- safetensors ----------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, which says that it is of this length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensors_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a whole file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def npy(shape: tuple[int, ...]) -> bytes:
    """A .npy file that says that it is of this shape, and holds nothing."""
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()
