"""What every command does that trains trials into a run: open it, prepare it, go on with it."""

from __future__ import annotations

import datetime
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.remote import below
from vqtune import __version__
from vqtune.cluster import Resources, holding, ray_cluster, resources
from vqtune.lease import leased
from vqtune.mirror import check_writable, fetch_records, holds_run, mirrored
from vqtune.node_check import check_nodes
from vqtune.notes import note
from vqtune.run_folder import RunFolder, check_name, existing_run, new_run, read_spec, write_yaml
from vqtune.shares import Shares
from vqtune.shipping import factories
from vqtune.space_errors import located


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Where to run and how; None where a flag was not given."""

    name: str | None = None
    storage: Path | str = Path("runs")  # a string is a URI
    address: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a session ended."""

    run: RunFolder
    finished: bool


@contextmanager
def opened(
    request: RunRequest, stem: str, other: str = "another search", remote: str | None = None
) -> Iterator[RunFolder]:
    """The run's folder, for this session alone.

    Args:
        request: where it stands, and whether it is to be there.
        stem: what it is called by default, with the time.
        other: what an error calls a session that is at work in it.
        remote: its URI, where the request's storage is a folder and the run's working copy in it
            has been fetched already.

    Raises:
        InputError: a run that cannot be made, or cannot be gone on with.
    """
    if request.resume and request.name is None:
        raise InputError("needs --name, the run to go on with", "--resume")
    name = request.name
    if name is None:
        name = f"{stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    storage, at_uri = _places(request, name)
    remote = remote or at_uri
    if request.resume:
        run = existing_run(storage, name, remote)
        with run.locked(other), leased(run, other):
            if run.remote is not None:  # whose it was may have gone on until now
                fetch_records(run.remote, run.path)
            yield run
        return
    run = new_run(storage, name, remote)
    with run.locked(other):
        try:
            with leased(run, other):
                yield run
        except BaseException:
            # Nothing was computed: a run that cannot start leaves no folder behind.
            with suppress(OSError):
                if not any(run.trials.iterdir()):
                    shutil.rmtree(run.path)
            raise


def _places(request: RunRequest, name: str) -> tuple[Path, str | None]:
    """The folder of the run's folder, and the run's URI, if it is kept at one."""
    if isinstance(request.storage, Path):
        if ":/" in str(request.storage):
            raise InputError(
                f"found {request.storage}; allowed: a folder, or a URI as s3://BUCKET/FOLDER",
                "--storage",
            )
        return request.storage.resolve(), None
    storage = Path("runs").resolve()
    check_name(name)
    remote = below(request.storage, name)
    with located("--storage"):
        if request.resume:
            fetch_records(remote, storage / name)
        elif holds_run(remote):
            raise InputError(
                f"the run {name!r} exists there; allowed: another name, or --resume to go on with "
                "it",
                request.storage,
            )
        check_writable(remote)
    return storage, remote


@contextmanager
def begun(
    request: RunRequest,
    run: RunFolder,
    first: TrialConfig,
    trials: int,
    asked: Mapping[str, Any],
    console: Console,
    others: Sequence[TrialConfig] = (),
    shares: Shares | None = None,
) -> Iterator[Resources]:
    """A cluster on which `first` can be trained, and the run's spec; gives what a trial takes.

    `trials` is how many the run is to have, `asked` what else its spec says, "objectives" at least;
    `others` are further configs that are known now, `shares` what the space says of what trials
    take, which flags overrule.
    """
    known = [first, *others]
    named = factories(asked, *(config.to_dict() for config in known))
    with ray_cluster(request.address, named) as joined:
        taken = share(request, run, shares or Shares())
        if joined:
            check_nodes(holding(taken), known, run.path.parent, run.remote)
        for warning in prepare(first, taken):
            note(console, warning)
        if not run.spec.exists():
            head = {
                "name": run.path.name,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "vqtune": __version__,
                "trials": trials,
                "token": secrets.token_hex(4),
                "samples": first.training.samples,
                "seed": first.seed,
                "resources": {"cpus": taken.cpus, "gpus": taken.gpus},
            }
            write_yaml(run.spec, {**head, **asked})
        with mirrored(run, lambda line: note(console, line)):
            yield taken


def share(request: RunRequest, run: RunFolder, shares: Shares) -> Resources:
    """What a trial takes; in a resumed run what it took before, or its numbers would change."""
    asked = {"cpus": request.cpus_per_trial, "gpus": request.gpus_per_trial}
    if not run.spec.exists():
        given = {"cpus": shares.cpus, "gpus": shares.gpus}
        asked = {name: given[name] if flag is None else flag for name, flag in asked.items()}
    else:
        spec = read_spec(run)
        recorded = spec.get("resources")
        for name, value in asked.items():
            then = recorded.get(name) if isinstance(recorded, dict) else None
            if not isinstance(then, (int, float)):
                raise InputError(
                    f"resources.{name}: found {then!r}, allowed: a number", str(run.spec)
                )
            if value is not None and value != then:
                raise InputError(
                    f"found {value:g}; the run was started with {then:g}, allowed: the same",
                    f"--{name}-per-trial",
                )
            asked[name] = then
    return resources(asked["cpus"], asked["gpus"], shares.rules)


def prepare(first: TrialConfig, taken: Resources) -> list[str]:
    """Read the data and build a config on a node, before trials depend on it."""
    import ray  # noqa: PLC0415

    own = taken.of(first.to_dict())
    task = ray.remote(_try_out).options(num_cpus=own.cpus, num_gpus=own.gpus, max_retries=0)
    try:
        return list(ray.get(task.remote(first.to_dict())))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise


def _try_out(values: dict[str, Any]) -> list[str]:
    from trainables.trainer import Trainer  # noqa: PLC0415

    return Trainer(TrialConfig.from_dict(values)).warnings


def check_same(now: Any, then: Any, path: str, run: RunFolder, source: str) -> None:
    """Refuse to go on with a run that was asked for otherwise; `source` is what it was made of."""
    if now == then:
        return
    path, now, then = first_difference(now, then, path)
    raise InputError(
        f"{path}: the run was started with {then!r}, now it is {now!r}; allowed: the same "
        f"{source} and flags",
        f"--resume {run.path.name}",
    )


class _Nothing:
    """Stands for a key that is not there."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def first_difference(now: Any, then: Any, path: str) -> tuple[str, Any, Any]:
    """Where two nested mappings first differ, and what is there in each."""
    if isinstance(now, dict) and isinstance(then, dict):
        for key in [*then, *now]:
            mine, theirs = now.get(key, _NOTHING), then.get(key, _NOTHING)
            if mine != theirs:
                return first_difference(mine, theirs, f"{path}.{key}")
    return path, now, then
