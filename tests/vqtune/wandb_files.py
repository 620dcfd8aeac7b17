"""Reads what W&B writes offline, by the format of its files: `wandb sync` is tried elsewhere."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32_768
_HEADER = struct.Struct("<4sHB")  # :W&B, magic number, version
_CHUNK = struct.Struct("<IHB")  # checksum, length, type


def read_wandb(path: Path) -> Iterator[Record]:
    """Records of a .wandb file, which is a LevelDB log of W&B's own protocol messages."""
    data = path.read_bytes()
    assert _HEADER.unpack_from(data) == (b":W&B", 0xBEE1, 0)
    place, begun = _HEADER.size, b""
    while place + _CHUNK.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _CHUNK.size:  # the rest of a block that has no room for a chunk is empty
            place += left
            continue
        checksum, length, kind = _CHUNK.unpack_from(data, place)
        begin = place + _CHUNK.size
        payload = data[begin : begin + length]
        assert checksum == zlib.crc32(payload, zlib.crc32(bytes([kind])))
        place = begin + length
        begun = payload if kind in (1, 2) else begun + payload  # full, first, middle, last
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(begun)
            yield record


class WandbRun:
    """What one offline run holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        [path] = folder.glob("*.wandb")
        records = list(read_wandb(path))
        self.run = [r.run for r in records if r.HasField("run")]
        self.history = [
            {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
            for r in records
            if r.HasField("history")
        ]
        self.config = {
            item.key: json.loads(item.value_json)
            for run in self.run
            for item in run.config.update
            if item.key
        }
        self.summary = {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for r in records
            if r.HasField("summary")
            for item in r.summary.update
        }
        self.tags = set(self.run[-1].tags)
        self.exit_code = next(r.exit.exit_code for r in records if r.HasField("exit"))


def read_runs(search: Path) -> list[WandbRun]:
    return [WandbRun(folder) for folder in search.glob("wandb/offline-run-*")]
