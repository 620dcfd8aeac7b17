"""Nodes of Ray clusters, each in a process of its own that ends with its `with` block."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# As `ray start` does, but with ports that are free: several nodes share this machine.
NODE = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray._private.node import Node
from ray._private.parameter import RayParams
head, cpus = sys.argv[1] == "head", float(sys.argv[2])
where = {} if head else {"gcs_address": sys.argv[1]}
ports = {"min_worker_port": 0, "max_worker_port": 0, "dashboard_agent_listen_port": 0}
params = RayParams(num_cpus=cpus, num_gpus=0, include_dashboard=False, **where, **ports)
node = Node(params, head=head, shutdown_at_exit=True, spawn_reaper=True)
print(node.gcs_address, node.node_id, flush=True)
sys.stdin.read()
"""


@contextmanager
def started(
    where: str,
    cpus: float,
    *,
    python: str = sys.executable,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
    **environment: str,
) -> Iterator[tuple[str, str]]:
    """A node with so many CPUs in the cluster at `where`, or the "head" of one of its own.

    Gives the cluster's address and the node's id. `prefix` is what its command begins with.
    """
    with subprocess.Popen(
        [*prefix, python, "-c", NODE, where, str(cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        try:
            address, node_id = process.stdout.readline().split()
            yield address, node_id
        finally:
            process.communicate()


def bare_python(folder: Path) -> str:
    """A Python that has what is installed here, but not what is installed editable, as vqtune."""
    venv.EnvBuilder(symlinks=True).create(folder)
    site = next(folder.glob("lib/python*/site-packages"))
    # Of a folder that is named so, Python reads no further .pth files.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(folder / "bin" / "python")
