"""`vqtune search`: from a space to a run, on a Ray cluster, in one go or resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.config import TrialConfig
from trainables.data import folder_kind
from trainables.errors import InputError
from vqtune.cluster import Resources
from vqtune.run_folder import RunFolder, read_spec
from vqtune.session import Outcome, RunRequest, begun, check_same, opened
from vqtune.spaces import Space, load_space


@dataclass(frozen=True)
class Request(RunRequest):
    """What `vqtune search` was asked for; None where a flag was not given."""

    space: str
    data: Path | None = None
    trials: int | None = None
    samples: int | None = None
    wandb: str | None = None
    seed: int | None = None


def search(request: Request, console: Console) -> Outcome:
    """Run or resume a search; returns when it is finished or interrupted.

    Raises:
        InputError: anything in the request that will not do, before the first trial starts.
    """
    space = resolve(request)
    if space.search.trials > 1 and not space.searched():
        raise InputError(f"nothing is searched in {space.source}", "space")
    with opened(request, space.name) as run:
        if request.resume:
            _check_same(space, read_spec(run), run)
            if _trials_left(space, run) <= 0:
                console.print(
                    f"{run.path.name} is finished: nothing is left to do", highlight=False
                )
                return Outcome(run, finished=True)
        baseline = space.baseline()
        trials, asked = space.search.trials, {"space": space.to_dict()}
        with begun(request, run, baseline, trials, asked, console) as taken:
            return Outcome(run, _tune(request, space, run, baseline, taken, console))


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
    for part in ("parameters", "search", "starts"):
        check_same(mine.get(part), theirs.get(part), part, run, "space")


def _trials_left(space: Space, run: RunFolder) -> int:
    from vqtune.resume import take_up  # noqa: PLC0415
    from vqtune.searcher import open_journal, proposals  # noqa: PLC0415

    return 1 + proposals(space) - len(take_up(run, open_journal(run.journal)).ended)


def _tune(
    request: Request,
    space: Space,
    run: RunFolder,
    baseline: TrialConfig,
    taken: Resources,
    console: Console,
) -> bool:
    from vqtune.progress import LiveTable  # noqa: PLC0415
    from vqtune.resume import take_up  # noqa: PLC0415
    from vqtune.scheduler import make_scheduler  # noqa: PLC0415
    from vqtune.searcher import VQSearch, make_sampler, open_journal, proposals  # noqa: PLC0415
    from vqtune.tuning import run_trials  # noqa: PLC0415

    storage = open_journal(run.journal)
    past = take_up(run, storage)
    scheduler = make_scheduler(space.search, baseline.training.samples, baseline.seed)
    past.replay(scheduler)
    searcher = VQSearch(
        space,
        storage,
        make_sampler(space.search.sampler, baseline.seed, past.proposed),
        {"folder": str(run.trials), "threads": taken.threads, "gpus": taken.gpus},
        None if past.baseline_ended else baseline.to_dict(),
        past.unfinished,
    )
    total = 1 + proposals(space)
    table = LiveTable(console, run.path.name, total, baseline.training.samples)
    tracker = _tracker(request, run, console.print)
    callbacks = [tracker] if tracker is not None else []
    try:
        run_trials(run, taken, table, searcher, past.ended, scheduler, callbacks)
    finally:
        if tracker is not None:
            tracker.close()
    return len(take_up(run, storage).ended) >= total


def _tracker(request: Request, run: RunFolder, warn: Callable[[str], None]) -> Any:
    if request.wandb is None:
        return None
    from vqtune.tracking import WandbTracker  # noqa: PLC0415

    token = read_spec(run).get("token", "")
    return WandbTracker(request.wandb, run.path.name, f"{run.path.name}-{token}", run.path, warn)
