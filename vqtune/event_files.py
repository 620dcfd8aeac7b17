"""TensorBoard's event files: records of length, checksum, event and checksum.

tensorboardX has the messages and the checksum, but its writer can only begin a new file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_HEAD, _TAIL = _LENGTH.size + _CHECKSUM.size, _CHECKSUM.size
END = "_hparams_/session_end_info"


def first_events(hparams: Mapping[str, Any], metrics: Sequence[str], at: float) -> list[Any]:
    """What a file begins with: hparams, and the metrics whose last values stand beside them."""
    from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped] # noqa: PLC0415
    from tensorboardX.summary import hparams as told  # type: ignore[import-untyped] # noqa: PLC0415

    experiment, start, _ = told(hparams, dict.fromkeys(metrics, 0))
    return [
        Event(wall_time=at, file_version="brain.Event:2"),
        Event(wall_time=at, summary=experiment),
        Event(wall_time=at, summary=start),
    ]


def scalars(values: Mapping[str, float], step: int, at: float) -> Any:
    """One event with many scalars."""
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[import-untyped] # noqa: PLC0415

    summary = Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])
    return Event(wall_time=at, step=step, summary=summary)


def last_events(state: str, step: int, at: float) -> list[Any]:
    """What a file ends with: the state as text, and that there is no more."""
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboardX.summary import hparams, text  # noqa: PLC0415

    _, _, end = hparams({}, {})
    told = text("state", state)
    return [Event(wall_time=at, step=step, summary=summary) for summary in (told, end)]


def write_events(path: Path, place: int, events: Sequence[Any]) -> int:
    """Write events at a place, over what is behind it; returns where they end."""
    data = b"".join(_record(event.SerializeToString()) for event in events)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(place)
        file.write(data)
        file.truncate()
    return place + len(data)


def read_events(path: Path) -> Iterator[tuple[int, Any]]:
    """The whole events of a file, each with the place at which its record ends."""
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    place = 0
    while place + _HEAD <= len(data):
        begin = place + _HEAD
        [length] = _LENGTH.unpack_from(data, place)
        end = begin + length
        place = end + _TAIL
        number, checksum = data[begin - _HEAD : begin - _TAIL], data[begin - _TAIL : begin]
        if place > len(data) or checksum != _checksum(number):
            return  # cut short
        content = data[begin:end]
        if data[end:place] != _checksum(content):
            return  # damaged
        event = Event()
        event.ParseFromString(content)
        yield place, event


def _record(event: bytes) -> bytes:
    length = _LENGTH.pack(len(event))
    return b"".join((length, _checksum(length), event, _checksum(event)))


def _checksum(data: bytes) -> bytes:
    """TensorFlow's: CRC-32C, rotated by 15 bits, plus a constant."""
    from tensorboardX.crc32c import crc32c  # type: ignore[import-untyped] # noqa: PLC0415

    crc = int(crc32c(data))
    return _CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
