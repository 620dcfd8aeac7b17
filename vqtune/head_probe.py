"""Asks the head of a Ray cluster who it is; a program of its own, started by `joining`.

Ray's client ends the process that has no token, and tries an address where nobody answers for
most of a minute: here neither harms anyone. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

# A node that was started a moment ago may not be known yet.
_PATIENCE = 3.0  # seconds


def probe(address: str) -> dict[str, Any]:
    """What the head at HOST:PORT says: its versions and nodes, or "refused" for a wrong token."""
    from ray._common.usage.usage_lib import get_cluster_metadata  # noqa: PLC0415
    from ray._private.services import find_node_ids  # noqa: PLC0415
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # noqa: PLC0415
    from ray.exceptions import AuthenticationError  # noqa: PLC0415

    try:
        client = GcsClient(address=address)
        versions = get_cluster_metadata(client) or {}
        until = time.monotonic() + _PATIENCE
        while True:
            nodes = client.get_all_node_info(timeout=5).values()
            alive = {n.node_id.hex(): n.node_manager_address for n in nodes if n.state == 0}
            # A driver needs a node of the cluster on its own machine.
            here = bool(alive.keys() & set(find_node_ids()))
            if here or time.monotonic() > until:
                break
            time.sleep(0.3)
    except AuthenticationError:
        return {"refused": True}
    return {
        "ray": versions.get("ray_version"),
        "python": versions.get("python_version"),
        "nodes": sorted(set(alive.values())),
        "here": here,
    }


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])), flush=True)
    os._exit(0)  # Ray's threads would take their time
