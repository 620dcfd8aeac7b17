"""The lane pools of a search: processes in which many trials train together, one a GPU.

Where trials take no GPU there is a pool for each share of a node's CPUs that a trial would have
had. Which pool a trial goes to is decided here; what Tune sees of it is in `lane_places`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.config import TrialConfig
from trainables.lane_actor import SUSPECT, LaneActor
from vqtune.cluster import Resources, alive, fitting

# Seconds for which a look at the nodes is good.
_GOOD = 2.0


class Pool:
    """A lane actor, and who is there.

    Attributes:
        actor: the process.
        address: of its node.
        seats: the lanes that trials have taken, by their key, in this order.
        lost: how many there were when it ended.
        told: whether the user knows of its end.
    """

    def __init__(self, node: str, address: str, taken: Resources, lanes: int) -> None:
        """Start the process on a node; it takes what a trial does."""
        self.address, self.seats = address, dict[str, Lane]()
        self.lost, self.told = 0, False
        remote = ray.remote(LaneActor).options(
            num_cpus=taken.cpus,
            num_gpus=taken.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        self.actor = remote.remote(lanes, taken.threads)
        self._starting: Any = self.actor.__ray_ready__.remote()

    @property
    def starting(self) -> Any:
        """What to wait for until it has been started, or could not be; None when that is over."""
        if self._starting is not None and ray.wait([self._starting], timeout=0)[0]:
            self._starting = None
        return self._starting

    def end(self) -> None:
        """End the process, if it has not died; who is there has lost the place.

        Of trials under suspicion only the first had been at work, see `lane_actor`.
        """
        ray.kill(self.actor)
        lanes = list(self.seats.values())
        for lane in [lane for lane in lanes if lane.deaths() >= SUSPECT][1:]:
            lane.spared = True
        self.lost = self.lost or len(lanes)
        self.seats.clear()


class Pools:
    """The pools on the nodes that are alive.

    Args:
        taken: what a pool takes: a trial's CPUs, and one GPU or none.
        lanes: how many trials a pool has at most.
    """

    def __init__(self, taken: Resources, lanes: int) -> None:
        """Start them."""
        self.taken, self.lanes = taken, lanes
        self._of_node: dict[str, list[Pool]] = {}
        self._looked = -_GOOD
        self.refresh()

    def refresh(self) -> None:
        """Start pools on nodes that have joined, forget those of nodes that have left."""
        if time.monotonic() - self._looked < _GOOD:
            return
        self._looked = time.monotonic()
        there = {node: (address, have) for node, address, have in alive()}
        for node in self._of_node.keys() - there.keys():
            for pool in self._of_node.pop(node):
                pool.end()
        for node, (address, have) in there.items():
            pools = self._of_node.setdefault(node, [])
            wanted = fitting(*have, self.taken.cpus, self.taken.gpus)
            while len(pools) < wanted:
                pools.append(Pool(node, address, self.taken, self.lanes))

    def slots(self) -> int:
        """How many trials the pools have lanes for, those that are starting too."""
        self.refresh()
        return self.lanes * sum(map(len, self._of_node.values()))

    def starting(self) -> list[Any]:
        """What to wait for until more pools have been started."""
        refs = (pool.starting for pools in self._of_node.values() for pool in pools)
        return [ref for ref in refs if ref is not None]

    def free(self) -> list[Pool]:
        """Those that have been started and have a lane."""
        self.refresh()
        pools = [pool for pools in self._of_node.values() for pool in pools]
        return [p for p in pools if len(p.seats) < self.lanes and p.starting is None]

    def lanes_free(self) -> dict[str, int]:
        """Lanes that another trial of a signature would find, by the signatures that are there."""
        found: dict[str, int] = {}
        for pool in self.free():
            for signature in {lane.signature for lane in pool.seats.values()}:
                found[signature] = found.get(signature, 0) + self.lanes - len(pool.seats)
        return found

    def lose(self, pool: Pool) -> None:
        """Forget a pool whose process has died; where its node is alive, it gets another."""
        for pools in self._of_node.values():
            if pool in pools:
                pools.remove(pool)
                self._looked = -_GOOD
        pool.end()

    def close(self) -> None:
        """End them all."""
        for pools in self._of_node.values():
            for pool in pools:
                pool.end()
        self._of_node.clear()


def choose(pools: list[Pool], signature: str) -> Pool:
    """The pool for a trial: an idle one, else one with others of its signature, the emptiest."""
    return min(
        pools,
        key=lambda pool: (
            bool(pool.seats),
            all(lane.signature != signature for lane in pool.seats.values()),
            len(pool.seats),
        ),
    )


class Lane:
    """A trial's place in a pool: its methods call the pool's actor, and nothing is run for it.

    Attributes:
        pool: the pool.
        signature: the trial's.
        spared: whether it has lost its place through no fault of the trial.
    """

    def __init__(self, pools: Pools, config: Mapping[str, Any], deaths: Callable[[], int]) -> None:
        """Take a free place.

        Args:
            pools: where.
            config: a TuneConfig.
            deaths: how many of the trial's processes in a row have ended.
        """
        self.signature = TrialConfig.from_dict(config["trial"]).signature()
        self.pool, self.config, self.deaths = choose(pools.free(), self.signature), config, deaths
        self.key, self.spared = uuid.uuid4().hex, False
        self.pool.seats[self.key] = self

    @property
    def taken(self) -> bool:
        """Whether the place has not been given up."""
        return self.key in self.pool.seats

    def join(self) -> Any:
        """Have the trial built."""
        return self.pool.actor.join.remote(self.key, self.config, self.deaths())

    def report(self) -> Any:
        """Ask for its next report."""
        return self.pool.actor.report.remote(self.key)

    def leave(self) -> Any:
        """Give up the place; gives what to wait for."""
        self.pool.seats.pop(self.key, None)
        return self.pool.actor.leave.remote(self.key)
