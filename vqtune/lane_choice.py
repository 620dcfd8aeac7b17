"""`--lanes`: whether a search's trials share processes, and how many share one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import click

from trainables.errors import InputError, named
from vqtune.run_folder import RunFolder, read_spec, write_yaml

if TYPE_CHECKING:
    from trainables.config import TrialConfig
    from vqtune.cluster import Resources

MOST = 128

# None is off.
Asked = int | Literal["auto"] | None


class Lanes(click.ParamType):  # type: ignore[type-arg] # generic only of late
    """auto, off or N on the command line."""

    name = "auto|N|off"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Asked:
        """The number of lanes, None for off."""
        text = str(value)
        if text in ("auto", "off"):
            return "auto" if text == "auto" else None
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
            self.fail(f"found {text!r}; allowed: auto, off, or N from 1 to {MOST}", param, ctx)
        return int(text)


def in_lanes(taken: Resources) -> Resources:
    """What a pool takes where trials would take this: a GPU as a whole, whatever the trial."""
    return replace(taken, gpus=float(taken.gpus > 0), rules=())


def check_lanes(asked: Asked, gpus_per_trial: float | None) -> None:
    """Refuse a number of lanes together with a share of a GPU."""
    if isinstance(asked, int) and gpus_per_trial not in (None, 0, 1):
        raise InputError(
            f"found {asked} with --gpus-per-trial {gpus_per_trial:g}; allowed: one of the two, as "
            "the trials in lanes share whole GPUs",
            "--lanes",
        )


def choose_lanes(asked: Asked, taken: Resources, first: TrialConfig) -> tuple[int | None, str]:
    """The number of lanes a pool, None for off, and what the user should know of it.

    Args:
        asked: the flag; auto tries `first` on a GPU of the cluster, and is off without GPUs.
        taken: what a trial in a process of its own takes.
        first: a config like those to come.
    """
    if asked != "auto":
        return asked, ""
    if not 0 < taken.gpus <= 1:
        return None, ""
    import ray  # noqa: PLC0415

    from trainables.calibrate import calibrate  # noqa: PLC0415

    task = ray.remote(calibrate).options(num_cpus=taken.cpus, num_gpus=1, max_retries=0)
    try:
        found = ray.get(task.remote(first.to_dict()))
    except ray.exceptions.RayError as error:
        told = named(getattr(error, "cause", error))[:200]
        return None, f"lanes: off, as they could not be tried: {told}"
    at_once = int(1 / taken.gpus + 1e-9)
    return found.best(at_once), found.told(at_once)


def record_lanes(run: RunFolder, lanes: int | None) -> None:
    """Write into the run's spec what this session has, which the next may have otherwise."""
    spec = read_spec(run)
    new = {key: value for key, value in spec.items() if key != "lanes"}
    new |= {"lanes": lanes} if lanes else {}
    if new != spec:
        write_yaml(run.spec, new)
