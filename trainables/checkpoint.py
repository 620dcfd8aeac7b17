"""One file of safetensors a checkpoint: tensors, and the rest as JSON in the header.

Nothing is ever unpickled, and a file is either whole or not there. What a disk or a copy has
damaged is told by its length, its header and a checksum of its tensors.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from trainables.errors import InputError


class DamagedError(InputError):
    """A file that is missing, cut short, changed since it was written, or of something else."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header through a temporary file beside `path`."""
    part = path.with_name(path.name + ".part")
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    try:
        with part.open("wb") as file:
            metadata = {"vqtune": json.dumps(header), "crc32": _checksum(contiguous)}
            file.write(save(contiguous, metadata=metadata))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)  # such as the part that a full disk took
        raise


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header; raises DamagedError, an InputError, for a file that will not do."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = dict(json.loads(metadata["vqtune"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"not a checkpoint of vqtune: {error}", str(path)) from None
    # Files of before there were checksums have none.
    if metadata.get("crc32", "") not in ("", _checksum(tensors)):
        raise DamagedError("not a checkpoint of vqtune: its checksum does not match", str(path))
    return tensors, header


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """The CRC-32 of all tensors in the order of their names, as hex."""
    total = 0
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().reshape(-1)
        total = zlib.crc32(flat.view(uint8).numpy().data, total)
    return f"{total:08x}"
