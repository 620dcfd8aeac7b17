"""A cluster of several nodes on this machine that loses nodes and trials while a search runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.vqtune.test_resume import Process, family

# As `ray start` does. Each worker has an address of its own, or a driver would take any of them for
# its own, and die with it.
NODE = """
import os, sys
from ray._private.node import Node
from ray._private.parameter import RayParams
where, cpus, address = sys.argv[1], float(sys.argv[2]), sys.argv[3]
given = {"gcs_address": where} if where else {}
given |= {"node_ip_address": address} if address else {}
ports = {"min_worker_port": 0, "max_worker_port": 0, "dashboard_agent_listen_port": 0}
params = RayParams(
    num_cpus=cpus, num_gpus=0, include_dashboard=False, object_store_memory=100 * 2**20,
    **given, **ports,
)
node = Node(params, head=not where, shutdown_at_exit=True, spawn_reaper=True)
print(node.gcs_address, flush=True)
sys.stdin.read()
"""
# Nodes that are lost are noticed within seconds, instead of a quarter of a minute.
SOON = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Node:
    """One node, in a process of its own with all that it starts."""

    def __init__(
        self, cpus: float, address: str = "", where: str = "", prefix: Sequence[str] = ()
    ) -> None:
        """Start it, in the cluster at `where` or as the head of a new one.

        `prefix` is what its command begins with.
        """
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", NODE, where, str(cpus), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **SOON},
        )
        assert self.process.stdout is not None
        self.cluster = self.process.stdout.readline().strip()

    def processes(self) -> set[Process]:
        """All that it has started and that is there, and itself."""
        return family(self.process.pid)

    def trials(self) -> list[Process]:
        """Its processes in which trials train, oldest first."""
        return sorted(
            (p for p in self.processes() if b"VQTrial" in _command(p.pid)),
            key=lambda process: int(process.started),
        )

    def kill(self) -> None:
        """End it as a power cut does."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self.process.poll() is None:
            started = self.processes()
            self.process.communicate()
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
