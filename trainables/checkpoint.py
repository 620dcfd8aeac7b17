"""One file of safetensors a checkpoint: tensors, and the rest as JSON in the header.

Nothing is ever unpickled, and a file is either whole or not there. What a disk or a copy has
damaged is told by its length, its header and a checksum of its tensors.
"""

from __future__ import annotations

import json
import os
import stat
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
        part.unlink(missing_ok=True)  # of a crash, or a link to somewhere else
        with part.open("xb") as file:
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
        _check_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = dict(json.loads(metadata["vqtune"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"not a checkpoint of vqtune: {error}", str(path)) from None
    # Files of before there were checksums have none.
    if metadata.get("crc32", "") not in ("", _checksum(tensors)):
        raise DamagedError("not a checkpoint of vqtune: its checksum does not match", str(path))
    return tensors, header


def read_trial(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a trial's checkpoint, whose header is as `Trainer.save` writes it.

    Raises:
        DamagedError: a file that will not do, or one of weights alone.
    """
    tensors, header = read_tensors(path)
    if not header.keys() >= {"trial", "samples", "reports", "seconds", "report", "made"}:
        raise DamagedError("found weights, allowed: the checkpoint of a trial", str(path))
    made, report = header["made"], header["report"]
    try:
        sound = (
            type(header["samples"]) is type(header["reports"]) is int
            and all(_is_number(header.get(f"{kind}seconds", 0)) for kind in ("", "cpu_", "gpu_"))
            and isinstance(header["trial"], dict)
            and all(isinstance(made[name], str) for name in ("data_fingerprint", "device"))
            and type(made["threads"]) is int
            and all(isinstance(version, str) for version in made["versions"].values())
            # Checkpoints of before these were written down lack them.
            and all(type(n) is int for n in made.get("example_shape", []))
            and all(_is_number(made.get(name, 0)) for name in ("mean", "std"))
            and isinstance(report.get("reason", ""), str)
            and all(_is_number(v) for k, v in report.items() if k != "reason")
        )
    except (AttributeError, KeyError, TypeError):
        sound = False
    if not sound:
        raise DamagedError("its header is not that of a trial's checkpoint", str(path))
    return tensors, header


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and float(value) is not None
    except OverflowError:  # JSON knows integers beyond all floats
        return False


def _check_regular(path: Path) -> None:
    """A pipe would be waited for; what is larger than the memory is none of ours."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")
    if found.st_size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise OSError(f"{found.st_size:,} bytes are more than this machine's memory")


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """The CRC-32 of all tensors in the order of their names, as hex."""
    total = 0
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().reshape(-1)
        total = zlib.crc32(flat.view(uint8).numpy().data, total)
    return f"{total:08x}"
