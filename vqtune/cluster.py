"""Ray at the edge: starting or joining a cluster, quietly, and counting how many trials fit."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from trainables.errors import InputError
from vqtune.joining import FLAG, check_head
from vqtune.shares import LEAST, Rule
from vqtune.shipping import shipped

# Tune reads these when it is imported: we record trials ourselves, and keep the user's folder.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # `room` limits them
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many fit at once; `rules` give some configs another share."""

    cpus: float
    gpus: float
    slots: int
    rules: tuple[Rule, ...] = ()

    @property
    def threads(self) -> int:
        """CPU threads of one trial."""
        return max(1, int(self.cpus))

    @property
    def ways(self) -> list[tuple[float, float]]:
        """CPUs and GPUs that a trial can take: by default, then by each rule."""
        default = (self.cpus, self.gpus)
        return [default, *(rule.over(*default) for rule in self.rules)]

    def of(self, config: Mapping[str, Any]) -> Resources:
        """What a trial of this config takes."""
        found = next((rule for rule in self.rules if rule.fits(config)), None)
        share = found.over(self.cpus, self.gpus) if found else (self.cpus, self.gpus)
        return Resources(*share, self.slots)

    def weight(self, config: Mapping[str, Any]) -> float:
        """How many trials of the default share this config's stands for."""
        own = self.of(config)
        pairs = ((own.cpus, self.cpus), (own.gpus, self.gpus))
        return max((mine / default for mine, default in pairs if default), default=1.0)


@contextmanager
def ray_cluster(address: str | None, factories: set[str] | None = None) -> Iterator[bool]:
    """Join the cluster at `address`, or start one on this machine; leave it at the end.

    Gives whether it was joined.

    A cluster that is joined is sent vqtune's code, and the user's modules of these `factories`.

    Raises:
        InputError: the cluster cannot be joined, as `joining` tells.
    """
    if address == "local":  # Ray's own word for it
        address = None
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    place = None if address is None else check_head(address)
    import ray  # noqa: PLC0415

    workers: dict[str, Any] = {"env_vars": dict(_ENVIRONMENT)}
    if place is not None:
        workers |= shipped(factories or set())
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    # A trial's traceback goes into its error.txt, not between the lines of the live table.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if place is None:
        with _closed_to_others():
            # Without an address Ray would join whatever cluster somebody has started here.
            ray.init(
                "local",
                include_dashboard=False,
                runtime_env=workers,
                job_config=_without_current_folder(),
                **quiet,
            )
    else:
        try:
            ray.init(address=place, runtime_env=workers, **quiet)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            told = [*str(error).strip().splitlines(), type(error).__name__][0]
            raise InputError(f"the cluster at {place} cannot be joined: {told}", FLAG) from None
    # A `kill` by a shell or a batch system ends it as Ctrl-C does, with all saved. Ray's own
    # handler, which it sets when it starts, would end the process at once.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield place is not None
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C would, even where a shell has its background jobs ignore that."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _without_current_folder() -> Any:
    """What keeps Ray from putting the current folder before the library in its workers' path.

    A user's `queue.py` would shadow Python's, and a foreign run's that is looked at from inside
    would be executed. A factory's module is found there all the same, see `trainables.factory`;
    not so on a cluster that is joined, whose workers stand elsewhere, and which is trusted.
    """
    from ray.job_config import JobConfig  # noqa: PLC0415

    class Nowhere(list[str]):
        def extend(self, _: Iterable[str]) -> None:
            """What Ray would add."""

    config = JobConfig()
    config._py_driver_sys_path = Nowhere()
    return config


@contextmanager
def _closed_to_others() -> Iterator[None]:
    """A cluster that is started in here listens on 127.0.0.1, not on every address of the machine.

    By Ray's own switch, on by default on macOS and Windows: the environment variable
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, which it reads when it is imported. And the token that Ray
    makes for it is not for all users of the machine to read.
    """
    from ray._private import ray_constants  # noqa: PLC0415

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        with suppress(OSError):  # none, or another user's
            Path("~/.ray/auth_token").expanduser().chmod(0o600)


def resources(
    cpus_per_trial: float | None, gpus_per_trial: float | None, rules: Sequence[Rule] = ()
) -> Resources:
    """Resolve what a trial takes from what the connected cluster has.

    A trial takes one CPU by default, and where the cluster has GPUs one GPU.

    Raises:
        InputError: not one trial fits on any node, or none of those that a rule is for.
    """
    have = [shares for *_, shares in alive()]
    for flag, value in (("--cpus", cpus_per_trial), ("--gpus", gpus_per_trial)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"found {value}; allowed: a finite number", f"{flag}-per-trial")
        if value is not None and 0 < value < LEAST:
            raise InputError(f"found {value:g}; allowed: 0, or {LEAST}", f"{flag}-per-trial")
    cpus = 1.0 if cpus_per_trial is None else cpus_per_trial
    gpus = gpus_per_trial
    if gpus is None:
        gpus = 1.0 if any(node_gpus >= 1 for _, node_gpus in have) else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"found {gpus:g}; allowed: up to 1, or whole GPUs", "--gpus-per-trial")
    taken = Resources(cpus, gpus, 0, tuple(rules))
    names = ["--cpus-per-trial, --gpus-per-trial"]
    names += [f"resources.rules.{i}" for i in range(len(rules))]
    slots = [_slots(have, *way, name) for way, name in zip(taken.ways, names, strict=True)]
    return replace(taken, slots=slots[0])


def _slots(have: Sequence[tuple[float, float]], cpus: float, gpus: float, where: str) -> int:
    """How many trials of this share the nodes hold; none at all is refused."""
    if cpus == gpus == 0:
        raise InputError("a trial takes neither CPUs nor GPUs; allowed: one of them above 0", where)
    slots = sum(fitting(*node, cpus, gpus) for node in have)
    if slots < 1:
        nodes_have = "; ".join(f"{c:g} CPUs and {g:g} GPUs" for c, g in sorted(set(have)))
        raise InputError(
            f"a trial needs {cpus:g} CPUs and {gpus:g} GPUs on one node, the cluster's nodes have "
            f"{nodes_have}",
            where,
        )
    return slots


def slots_now(taken: Resources) -> int:
    """How many trials fit on the nodes that are alive now; none is possible."""
    return sum(fitting(*shares, taken.cpus, taken.gpus) for *_, shares in alive())


def holding(taken: Resources) -> dict[str, str]:
    """The nodes on which a trial of any share fits: addresses by node id."""
    return {
        node: address
        for node, address, have in alive()
        if any(fitting(*have, *way) for way in taken.ways)
    }


def alive() -> list[tuple[str, str, tuple[float, float]]]:
    """Id, address, CPUs and GPUs of each node that is alive."""
    import ray  # noqa: PLC0415

    return [
        (
            str(node.get("NodeID")),
            str(node.get("NodeManagerAddress")),
            (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def fitting(node_cpus: float, node_gpus: float, cpus: float, gpus: float) -> int:
    """How many trials one node holds; a fraction divides one GPU, several GPUs are taken whole."""
    rounding = 1e-9
    limits = []
    if cpus:
        limits.append(int(node_cpus / cpus + rounding))
    if gpus > 1:
        limits.append(int(node_gpus // gpus))
    elif gpus:
        limits.append(int(node_gpus) * int(1 / gpus + rounding))
    return min(limits)
