"""Lanes as Ray Tune takes them: as resources that a trial waits for, and as actors.

Tune has an actor a trial, for which it first acquires resources. Here what it acquires is a place
in a pool, and what it takes for the actor is a Lane, which costs no process of its own: its
methods call the pool's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.air.execution import AcquiredResources, ResourceManager, ResourceRequest
from ray.exceptions import RayTaskError
from ray.tune.result import TRIAL_INFO

from vqtune.lanes import Lane, Pools
from vqtune.retries import Actors, Deaths, LaneLostError


class _Method:
    """What Tune calls as an actor's method."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def remote(self, *_: Any, **__: Any) -> Any:
        """The call; what Tune passes is of no use to a lane."""
        return self._call()


class LaneHandle:
    """A Lane with the methods that Tune calls of a trial's actor.

    Not among them are `reset`, as a trial that ends costs no process that others could use, and
    `save` and `restore`, as trials keep their checkpoints themselves.
    """

    def __init__(self, lane: Lane) -> None:
        """Have the lane's trial built when Tune asks whether it is ready."""
        self.lane = lane
        self.__ray_ready__ = _Method(lane.join)
        self.__ray_terminate__ = self.stop = _Method(lane.leave)
        self.train = _Method(lane.report)
        self.get_auto_filled_metrics = _Method(lambda: ray.put({}))
        self.get_current_ip_pid = _Method(lambda: ray.put((lane.pool.address, None)))


class _Place(AcquiredResources):  # type: ignore[misc]
    """A place that Tune has acquired: the trial's actor class becomes what takes a lane."""

    def __init__(self, places: LanePlaces, request: ResourceRequest) -> None:
        super().__init__(request)
        self._places = places
        self.handle: LaneHandle | None = None

    def annotate_remote_entities(self, entities: list[Any]) -> list[Any]:
        """In place of the one actor class, what `remote` makes a handle of."""
        return [self]

    def remote(self, config: Mapping[str, Any], **_: Any) -> LaneHandle:
        """A handle for a trial."""
        self.handle = self._places.take(config)
        return self.handle

    def _annotate_remote_entity(self, entity: Any, bundle: Any, bundle_index: int) -> Any:
        raise NotImplementedError  # `annotate_remote_entities` does without


class LanePlaces(ResourceManager):  # type: ignore[misc]
    """Tune's resources: the lanes of pools.

    Args:
        pools: the pools.
        deaths: how many processes of a trial, by Tune's id of it, have ended in a row.
    """

    def __init__(self, pools: Pools, deaths: Deaths) -> None:
        """Nothing is taken yet."""
        self.pools, self._deaths = pools, deaths

    def request_resources(self, resource_request: ResourceRequest) -> None:
        """Nothing: pools are started where there are nodes, whoever asks."""

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        """Nothing, as well."""

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        """Whether a lane is free."""
        return bool(self.pools.free())

    def acquire_resources(self, resource_request: ResourceRequest) -> _Place:
        """A place; which one is known when its trial is."""
        return _Place(self, resource_request)

    def free_resources(self, acquired_resource: _Place) -> None:
        """The trial has ended or is lost: it leaves, whatever of it is left."""
        handle = acquired_resource.handle
        if handle is not None and handle.lane.taken:
            handle.lane.leave()

    def get_resource_futures(self) -> list[Any]:
        """What tells that there may be more lanes."""
        return self.pools.starting()

    def clear(self) -> None:
        """Nothing is left to be cleared."""

    def take(self, config: Mapping[str, Any]) -> LaneHandle:
        """A place in the pool that suits a trial best."""
        ours = {key: value for key, value in config.items() if not key.startswith("__")}
        trial_id = config[TRIAL_INFO].trial_id
        return LaneHandle(Lane(self.pools, ours, lambda: self._deaths(trial_id)))


def in_pools(pools: Pools) -> Callable[[Deaths], Actors]:
    """What makes the actors of trials that train in these pools."""
    return lambda deaths: LaneActors(LanePlaces(pools, deaths))


class LaneActors(Actors):
    """Tune's actors that are LaneHandles."""

    def __init__(self, resource_manager: LanePlaces) -> None:
        """Have them in these places."""
        super().__init__(resource_manager=resource_manager)
        self.pools = resource_manager.pools

    def cleanup(self) -> None:
        """Give up all places: there is no process to be killed."""
        for tracked_actor in self.live_actors:
            self._cleanup_actor(tracked_actor)
        super().cleanup()

    def _try_kill_actor(self) -> bool:
        """Forget an actor that has not ended in time: its place was given up when that began."""
        if not self._live_actors_to_kill:
            return False
        self._actor_stop_resolved(self._live_actors_to_kill.pop())
        return True

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, self._seen(tracked_actor, exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        exception = self._seen(tracked_actor_task._tracked_actor, exception)
        super()._actor_task_failed(tracked_actor_task, exception)

    def _seen(self, tracked_actor: Any, exception: Exception) -> Any:
        """Give up a pool whose process has died or is out of reach."""
        if isinstance(exception, RayTaskError):
            return exception
        handle, _ = self._live_actors_to_ray_actors_resources[tracked_actor]
        lane: Lane = handle.lane
        self.pools.lose(lane.pool)
        others = None if lane.pool.told else lane.pool.lost - 1
        lane.pool.told = True
        return LaneLostError(str(exception), others, lane.spared)
