"""What a process and its children listen on, as Linux's /proc tells."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTENS = "0A"


def listening(root: int) -> set[tuple[str, IPv4Address | IPv6Address]]:
    """(process, address) of each TCP socket that takes connections, and of each UDP socket."""
    names = {}
    for pid in _tree(root):
        with suppress(OSError):  # it has ended
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    names[str(descriptor.readlink())] = name
    found = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            name = names.get(f"socket:[{inode}]", "")
            if name and (state == _LISTENS or kind.startswith("udp")):
                found.add((name, _address(local.partition(":")[0])))
    return found


def _address(told: str) -> IPv4Address | IPv6Address:
    """Of words of four bytes, each in the order of the machine."""
    raw = bytes.fromhex(told)
    words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    found = ip_address(socket.inet_ntop(family, b"".join(words)))
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found
