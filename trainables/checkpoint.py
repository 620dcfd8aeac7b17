"""One file of safetensors a checkpoint: tensors, and the rest as JSON in the header.

Nothing is ever unpickled, and a file is either whole or not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainables.errors import InputError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header through a temporary file beside `path`."""
    part = path.with_name(path.name + ".part")
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    try:
        with part.open("wb") as file:
            file.write(save(contiguous, metadata={"vqtune": json.dumps(header)}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)  # such as the part that a full disk took
        raise


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header; raises InputError for a file that is missing, cut short or foreign."""
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(json.loads((file.metadata() or {})["vqtune"]))
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a checkpoint of vqtune: {error}", str(path)) from None
