"""`vqtune search`: from a space to a run, on a Ray cluster, in one go or resumed."""

from __future__ import annotations

import datetime
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.config import TrialConfig
from trainables.data import folder_kind
from trainables.errors import InputError
from vqtune import __version__
from vqtune.cluster import Resources, ray_cluster, resources
from vqtune.run_folder import RunFolder, existing_run, new_run, read_spec, write_yaml
from vqtune.spaces import Space, load_space

# A trial whose process dies goes on from its checkpoint this many times.
_RETRIES = 2


@dataclass(frozen=True)
class Request:
    """What `vqtune search` was asked for; None where a flag was not given."""

    space: str
    data: Path | None = None
    trials: int | None = None
    samples: int | None = None
    name: str | None = None
    storage: Path = Path("runs")
    address: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    wandb: str | None = None
    seed: int | None = None
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    run: RunFolder
    finished: bool


def search(request: Request, console: Console) -> Outcome:
    """Run or resume a search; returns when it is finished or interrupted.

    Raises:
        InputError: anything in the request that will not do, before the first trial starts.
    """
    if ":/" in str(request.storage):
        raise InputError(f"found {request.storage}; allowed: a folder", "--storage")
    if request.resume and request.name is None:
        raise InputError("needs --name, the run to go on with", "--resume")
    space = resolve(request)
    name = request.name
    if name is None:
        name = f"{space.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    if space.search.trials > 1 and not space.searched():
        raise InputError(f"nothing is searched in {space.source}", "space")
    if request.resume:
        run = existing_run(request.storage.resolve(), name)
        with run.locked():
            _check_same(space, read_spec(run), run)
            if _trials_left(space, run) <= 0:
                console.print(f"{name} is finished: nothing is left to do", highlight=False)
                return Outcome(run, finished=True)
            return _run(request, space, run, console)
    run = new_run(request.storage.resolve(), name)
    with run.locked():
        try:
            return _run(request, space, run, console)
        except BaseException:
            # Nothing was computed: a run that cannot start leaves no folder behind.
            if not any(run.trials.iterdir()):
                shutil.rmtree(run.path)
            raise


def resolve(request: Request) -> Space:
    """The space with everything that the command line changes in it."""
    space = load_space(request.space)
    overrides: dict[str, Any] = {}
    if request.samples is not None:
        overrides["training.samples"] = request.samples
    if request.seed is not None:
        overrides["seed"] = request.seed
    if overrides:
        space = space.with_overrides(overrides, "--samples, --seed")
    if request.data is not None:
        block = data_block(request.data, space.parameters.get("data", {}))
        space = replace(space, parameters={**space.parameters, "data": block})
    if request.trials is not None:
        space = space.with_search("--trials", trials=request.trials)
    return space


def data_block(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The data block for a user's folder; keeps what still applies of `given`."""
    kind, place = folder_kind(path), str(path.resolve())
    if given.get("kind") == kind:
        return {**given, "path": place}
    # The split of other data says nothing about these; clips and features may be the model's.
    kept = {"audio": ("clip_frames", "features"), "arrays": ("clip_frames",)}.get(kind, ())
    return {"kind": kind, "path": place, **{key: given[key] for key in kept if key in given}}


def _check_same(space: Space, spec: dict[str, Any], run: RunFolder) -> None:
    mine, theirs = space.to_dict(), spec.get("space")
    if not isinstance(theirs, dict):
        raise InputError(
            f"space: found {theirs!r}, allowed: what a search has written", str(run.spec)
        )
    for part in ("parameters", "search"):
        if mine[part] != theirs.get(part):
            path, now, then = _first_difference(mine[part], theirs.get(part), part)
            raise InputError(
                f"{path}: the run was started with {then!r}, now it is {now!r}; allowed: the same "
                "space and flags",
                f"--resume {run.path.name}",
            )


def _first_difference(now: Any, then: Any, path: str) -> tuple[str, Any, Any]:
    if isinstance(now, dict) and isinstance(then, dict):
        for key in [*then, *now]:
            if now.get(key) != then.get(key):
                return _first_difference(now.get(key), then.get(key), f"{path}.{key}")
    return path, now, then


def _trials_left(space: Space, run: RunFolder) -> int:
    from vqtune.resume import take_up  # noqa: PLC0415
    from vqtune.searcher import open_journal, proposals  # noqa: PLC0415

    return 1 + proposals(space) - len(take_up(run, open_journal(run.journal)).ended)


def _run(request: Request, space: Space, run: RunFolder, console: Console) -> Outcome:
    baseline = space.baseline()
    with ray_cluster(request.address):
        share = _share(request, run)
        for warning in _prepare(baseline, share):
            console.print(f"Note: {warning}", style="yellow", markup=False, highlight=False)
        if not run.spec.exists():
            write_yaml(run.spec, _spec(space, run, baseline, share))
        finished = _tune(request, space, run, baseline, share, console)
    return Outcome(run, finished)


def _share(request: Request, run: RunFolder) -> Resources:
    """What a trial takes; in a resumed run what it took before, or its numbers would change."""
    asked = {"cpus": request.cpus_per_trial, "gpus": request.gpus_per_trial}
    if run.spec.exists():
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
    return resources(asked["cpus"], asked["gpus"])


def _spec(space: Space, run: RunFolder, baseline: TrialConfig, share: Resources) -> dict[str, Any]:
    return {
        "name": run.path.name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "vqtune": __version__,
        "trials": space.search.trials,
        "token": secrets.token_hex(4),
        "samples": baseline.training.samples,
        "seed": baseline.seed,
        "objectives": {"perplexity": "max", "recon_loss": "min"},
        "resources": {"cpus": share.cpus, "gpus": share.gpus},
        "space": space.to_dict(),
    }


def _prepare(baseline: TrialConfig, share: Resources) -> list[str]:
    """Read the data and build the baseline on a node, before trials depend on it."""
    import ray  # noqa: PLC0415

    task = ray.remote(_try_out).options(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)
    try:
        return list(ray.get(task.remote(baseline.to_dict())))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise


def _try_out(values: dict[str, Any]) -> list[str]:
    from trainables.trainer import Trainer  # noqa: PLC0415

    return Trainer(TrialConfig.from_dict(values)).warnings


def _tune(
    request: Request,
    space: Space,
    run: RunFolder,
    baseline: TrialConfig,
    share: Resources,
    console: Console,
) -> bool:
    from ray import tune  # noqa: PLC0415

    from trainables.tune_trainable import VQTrial  # noqa: PLC0415
    from vqtune.progress import LiveTable  # noqa: PLC0415
    from vqtune.recorder import Recorder  # noqa: PLC0415
    from vqtune.resume import take_up  # noqa: PLC0415
    from vqtune.scheduler import make_scheduler  # noqa: PLC0415
    from vqtune.searcher import VQSearch, make_sampler, open_journal, proposals  # noqa: PLC0415

    storage = open_journal(run.journal)
    past = take_up(run, storage)
    scheduler = make_scheduler(space.search, baseline.training.samples)
    past.replay(scheduler)
    searcher = VQSearch(
        space,
        storage,
        make_sampler(space.search.sampler, baseline.seed, past.proposed),
        {"folder": str(run.trials), "threads": share.threads, "gpus": share.gpus},
        None if past.baseline_ended else baseline.to_dict(),
        past.unfinished,
    )
    total = 1 + proposals(space)
    table = LiveTable(console, run.path.name, total, baseline.training.samples)
    for trial in past.ended:
        table.carry_over(trial.trial_id, trial.state, trial.last, trial.config)
    callbacks: list[Any] = [Recorder(run), table]
    tracker = _tracker(request, run, console.print)
    if tracker is not None:
        callbacks.append(tracker)
    tuner = tune.Tuner(
        tune.with_resources(VQTrial, {"cpu": share.cpus, "gpu": share.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=total - len(past.ended),
            max_concurrent_trials=share.slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.config["trial_id"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(run.tune),
            verbose=0,
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    try:
        with table:
            tuner.fit()
    finally:
        if tracker is not None:
            tracker.close()
        shutil.rmtree(run.tune, ignore_errors=True)
    return len(take_up(run, storage).ended) >= total


def _tracker(request: Request, run: RunFolder, warn: Callable[[str], None]) -> Any:
    if request.wandb is None:
        return None
    from vqtune.tracking import WandbTracker  # noqa: PLC0415

    token = read_spec(run).get("token", "")
    return WandbTracker(request.wandb, run.path.name, f"{run.path.name}-{token}", run.path, warn)
