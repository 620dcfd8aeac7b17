"""`vqtune search`: from a space to a run, on a Ray cluster, in one go or resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trainables.data import folder_kind
from trainables.errors import InputError
from vqtune.budget import Budget
from vqtune.cluster import Resources
from vqtune.lane_choice import Asked, check_lanes, choose_lanes, in_lanes, record_lanes
from vqtune.notes import note
from vqtune.plan import Plan, recorded, resumed
from vqtune.run_folder import RunFolder, read_spec
from vqtune.session import Outcome, RunRequest, begun, opened
from vqtune.spaces import Space, load_space
from vqtune.trial_count import More

if TYPE_CHECKING:
    from vqtune.warm_start import WarmStart


@dataclass(frozen=True)
class Request(RunRequest):
    """What `vqtune search` was asked for; None where a flag was not given."""

    space: str
    data: Path | None = None
    trials: int | More | None = None
    samples: int | None = None
    wandb: str | None = None
    seed: int | None = None
    budget: tuple[str, ...] = ()
    warm_start: str | None = None
    keep_checkpoints: bool = False
    lanes: Asked = "auto"


def search(request: Request, console: Console) -> Outcome:
    """Run or resume a search; returns when it is finished or interrupted.

    Raises:
        InputError: anything in the request that will not do, before the first trial starts.
    """
    plan = _asked(request)
    check_lanes(request.lanes, request.gpus_per_trial)
    with opened(request, plan.space.name) as run:
        if request.resume:
            plan, over = _resumed(plan, request, run)
            if over:
                plan.record(run)
                console.print(f"{run.path.name} is finished: {over}", highlight=False)
                return Outcome(run, finished=True)
        warm = _warm_start(plan, run)
        baseline, trials = plan.space.baseline(), plan.space.search.trials
        shares = plan.space.resources
        with begun(request, run, baseline, trials, plan.asked(), console, shares=shares) as taken:
            on_gpus = any(gpus for _, gpus in taken.ways)
            if "gpu-seconds" in plan.budget.limits and not on_gpus:
                raise InputError(
                    "found gpu-seconds, but trials take no GPU; allowed: with --gpus-per-trial, "
                    "or another kind",
                    "--budget",
                )
            plan.record(run)
            return Outcome(run, _tune(request, plan, warm, run, taken, console))


def _asked(request: Request) -> Plan:
    space = resolve(request)
    if space.search.trials > 1 and not space.searched():
        raise InputError(f"nothing is searched in {space.source}", "space")
    budget = Budget.parse(request.budget)
    keep = request.keep_checkpoints
    if request.warm_start is None:
        return Plan(space, budget, keep_checkpoints=keep)
    from vqtune.warm_start import find_warm_start  # noqa: PLC0415

    return Plan(space, budget, find_warm_start(request.warm_start), keep)


def _resumed(asked: Plan, request: Request, run: RunFolder) -> tuple[Plan, str | None]:
    """The plan, and why there is nothing left to do; nothing is written before all is checked."""
    from vqtune.resume import journal_of, read_past, take_up  # noqa: PLC0415

    then = recorded(run)
    storage = journal_of(run)
    plan = resumed(asked, request.trials, run, then, read_past(run, storage))
    return plan, plan.over(take_up(run, storage))


def _warm_start(plan: Plan, run: RunFolder) -> WarmStart | None:
    """The other run's trials, unless all are in the journal already."""
    from vqtune.journal import WARM, find_study, open_journal  # noqa: PLC0415
    from vqtune.warm_start import read_warm_start  # noqa: PLC0415

    if plan.warm_start is None:
        return None
    if run.journal.exists():
        study = find_study(open_journal(run.journal), plan.space.search.objectives, run.journal)
        if study is not None and WARM in study.user_attrs:
            return None
    return read_warm_start(plan.warm_start, plan.space)


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
    if isinstance(request.trials, More) and not request.resume:
        raise InputError(
            f"found +{request.trials.trials}; allowed: with --resume, to go on with a run that has "
            "fewer",
            "--trials",
        )
    if request.trials is not None and not request.resume:
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


def _tune(
    request: Request,
    plan: Plan,
    warm: WarmStart | None,
    run: RunFolder,
    taken: Resources,
    console: Console,
) -> bool:
    from vqtune.journal import make_study, open_journal  # noqa: PLC0415
    from vqtune.lanes import Pools  # noqa: PLC0415
    from vqtune.progress import LiveTable  # noqa: PLC0415
    from vqtune.resume import RUN, take_up  # noqa: PLC0415
    from vqtune.scheduler import make_scheduler  # noqa: PLC0415
    from vqtune.searcher import VQSearch  # noqa: PLC0415
    from vqtune.tuning import run_trials  # noqa: PLC0415

    space, baseline = plan.space, plan.space.baseline()
    storage = open_journal(run.journal)
    past = take_up(run, storage)
    scheduler = make_scheduler(space.search, baseline.training.samples, baseline.seed)
    past.replay(scheduler)
    study = make_study(storage, space.search.objectives)
    if RUN not in study.user_attrs:
        study.set_user_attr(RUN, read_spec(run).get("token"))
    if warm is not None and warm.add(study):
        note(console, warm.told)
    table = LiveTable(
        console,
        run.path.name,
        plan.total,
        baseline.training.samples,
        objectives=space.search.objectives,
    )
    lanes, told = choose_lanes(request.lanes, taken, baseline)
    if told:
        note(console, told)
    record_lanes(run, lanes)
    taken = in_lanes(taken) if lanes else taken
    pools = Pools(taken, lanes) if lanes else None
    lasts = past.lasts
    searcher = VQSearch(
        space,
        storage,
        baseline.seed,
        {
            "folder": str(run.trials),
            "threads": taken.threads,
            "gpus": taken.gpus,
            "objectives": dict(space.search.objectives),
            "snapshots": request.wandb is not None,
        },
        None if past.baseline_ended else baseline.to_dict(),
        past.unfinished,
        past.yardstick(),
        spent=lambda: plan.budget.spent({**lasts, **table.last}.values()),
        lanes_free=None if pools is None else pools.lanes_free,
    )
    tracker = _tracker(request, run, console.print)
    callbacks = [tracker] if tracker is not None else []
    try:
        run_trials(
            run,
            taken,
            table,
            searcher,
            past.ended,
            scheduler,
            callbacks,
            plan.keep_checkpoints,
            pools,
        )
    finally:
        if pools is not None:
            pools.close()
        if tracker is not None:
            tracker.close()
    past = take_up(run, storage)
    over = plan.over(past)
    if over and len(past.ended) < plan.total:
        console.print(f"{run.path.name}: {over}", markup=False, highlight=False)
    return over is not None


def _tracker(request: Request, run: RunFolder, warn: Callable[[str], None]) -> Any:
    if request.wandb is None:
        return None
    from vqtune.tracking import WandbTracker  # noqa: PLC0415

    return WandbTracker(request.wandb, run, str(read_spec(run).get("token", "")), warn)
