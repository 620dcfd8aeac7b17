"""`vqtune confirm`: the best trials of a search and its baseline, trained again with new seeds.

Into RUN/confirm, a run of its own. Asked again, it goes on with what is missing; more finalists
or seeds are added, and nothing that is there is trained again or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.confirmed import FOLDER, Confirmation, confirmed, read_confirmation
from analysis.ranking import ranking
from analysis.records import Records, find_run, read_run
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.remote import below, is_uri
from vqtune.lease import check_free
from vqtune.mirror import check_writable, working_copy
from vqtune.notes import note
from vqtune.planned import PlannedTrial, left, train_left
from vqtune.run_folder import RunFolder, read_spec, unstarted, write_text, write_yaml
from vqtune.session import Outcome, RunRequest, begun, opened
from vqtune.shares import Shares
from vqtune.user_terms import UserTerms

TABLE = "confirmed.csv"

_MOST = 2**31


@dataclass(frozen=True)
class Request:
    """What `vqtune confirm` was asked for; None where a flag was not given.

    `run` is a folder, a name or a URI, to which the confirmation then goes.
    """

    run: str
    top: int = 5
    seeds: int = 3
    address: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    terms: UserTerms = field(default_factory=UserTerms)


def confirm(request: Request, console: Console) -> Outcome:
    """Train what is missing of a confirmation; returns when it is finished or interrupted.

    The table of a finished one is in RUN/confirm/confirmed.csv.

    Raises:
        InputError: a search that is at work or has nothing to confirm, before anything is trained.
    """
    remote = below(request.run, FOLDER) if is_uri(request.run) else None
    place = request.run if remote is None else str(working_copy(request.run))
    search = _ended_search(find_run(place))
    if remote is not None:
        check_free(request.run, "a search")
        check_writable(remote)
    there = RunFolder(search.run / FOLDER)
    asked = _run_request(request, search, there)
    with opened(asked, FOLDER, "another confirmation", remote) as run:
        finalists, seeds = _asked(request, search, read_confirmation(search))
        trials = _planned(search, finalists, seeds)
        name = f"{search.run.resolve().name}/{FOLDER}"
        if asked.resume and not left(trials, run):
            console.print(f"{name} is finished: nothing is left to do", highlight=False)
            return _ended(search, run, trials, console)
        block = {
            "run": search.run.resolve().name,
            "finalists": finalists,
            "seeds": seeds,
        }
        spec = {"objectives": search.spec["objectives"], "confirm": block}
        first = trials[0].config
        configs = [trial.config for trial in trials]
        shares = _shares(search)
        with begun(asked, run, first, len(trials), spec, console, configs, shares) as taken:
            _record(run, len(trials), block)
            console.print(
                f"{name}: {len(finalists)} configs with {len(seeds)} seeds, {len(trials)} trials",
                highlight=False,
            )
            train_left(trials, run, name, taken, console)
        if left(trials, run):
            return Outcome(run, finished=False)
        return _ended(search, run, trials, console)


def _ended_search(path: Path) -> Records:
    """A search that is not at work, and has something to confirm."""
    with RunFolder(path).locked("a search"):
        search = read_run(path)
    other = next((kind for kind in ("ablation", "confirm") if kind in search.spec), None)
    if other is not None:
        found = {"ablation": "an ablation", "confirm": "a confirmation"}[other]
        raise InputError(f"is {found}, allowed: the run of a search", str(path))
    if not (search.trials["state"] == "complete").any():
        raise InputError(
            "no trial has reached its full budget, so there is nothing to confirm", str(path)
        )
    return search


def _run_request(request: Request, search: Records, there: RunFolder) -> RunRequest:
    """Where the confirmation stands; its trials take what those of the search took."""
    begun_before = there.spec.exists()
    if there.path.exists() and not begun_before and not unstarted(there):
        raise InputError("is no confirmation; allowed: move it away", str(there.path))
    took = search.spec.get("resources")
    share: dict[str, Any] = took if isinstance(took, dict) and not begun_before else {}

    def or_then(flag: float | None, name: str) -> float | None:
        then = share.get(name)
        return flag if flag is not None or not isinstance(then, (int, float)) else float(then)

    return RunRequest(
        name=FOLDER,
        storage=search.run,
        address=request.address,
        gpus_per_trial=or_then(request.gpus_per_trial, "gpus"),
        cpus_per_trial=or_then(request.cpus_per_trial, "cpus"),
        resume=begun_before,
    )


def _shares(search: Records) -> Shares:
    """What the trials of the search took by their configs."""
    space = search.spec.get("space")
    found = space.get("resources", {}) if isinstance(space, dict) else {}
    return Shares.parse(found if isinstance(found, dict) else {})


def _asked(
    request: Request, search: Records, before: Confirmation | None
) -> tuple[list[str], list[int]]:
    """Finalists, the baseline last, and seeds: those of before and what is asked for now."""
    roles = dict(zip(search.trials["trial_id"], search.trials["role"], strict=True))
    # Behind the front too: one seed may have put there what belongs on it.
    ranked = ranking(search, request.terms.of(search))
    ranked = ranked[ranked["feasible"] & (ranked["role"] != "baseline")]
    chosen = [str(trial) for trial in ranked["trial_id"].head(request.top)]
    then = [trial for trial in before.finalists if roles.get(trial) != "baseline"] if before else []
    gone = [trial for trial in then if trial not in search.configs]
    if gone:
        raise InputError(
            f"{gone[0]} was confirmed, but is no trial of the search any more; allowed: bring it "
            f"back, or move {FOLDER} away",
            str(search.run),
        )
    baseline = [trial for trial, role in roles.items() if role == "baseline"][:1]
    finalists = [*dict.fromkeys([*chosen, *then]), *baseline]
    seeds = list(before.seeds) if before else []
    return finalists, [*seeds, *_new_seeds(search, seeds, request.seeds - len(seeds))]


def _new_seeds(search: Records, taken: Sequence[int], count: int) -> list[int]:
    """Seeds that no trial of the search had, upward from the search's own."""
    used = {config.get("seed") for config in search.configs.values()} | set(taken)
    first = search.spec.get("seed", 0)
    found: list[int] = []
    seed = first if type(first) is int else 0
    while len(found) < count:
        seed = (seed + 1) % _MOST
        if seed not in used:
            found.append(seed)
    return found


def _planned(search: Records, finalists: list[str], seeds: list[int]) -> list[PlannedTrial]:
    """Each config with each seed; all with the first seed come first."""
    roles = dict(zip(search.trials["trial_id"], search.trials["role"], strict=True))
    return [
        PlannedTrial(
            f"{trial}-s{seed}",
            # A run has one baseline, which `vqtune front` sets its trials against.
            "baseline" if roles[trial] == "baseline" and seed == seeds[0] else "confirm",
            TrialConfig.from_dict({**search.configs[trial], "seed": seed}, trial),
        )
        for seed in seeds
        for trial in finalists
    ]


def _record(run: RunFolder, trials: int, block: dict[str, Any]) -> None:
    spec = read_spec(run)
    new = {**spec, "trials": trials, "confirm": block}
    if new != spec:
        write_yaml(run.spec, new)


def _ended(
    search: Records, run: RunFolder, trials: Sequence[PlannedTrial], console: Console
) -> Outcome:
    if _other_data(search, run, trials):
        note(
            console,
            "the data are not those of the search: its values cannot be compared with these",
        )
    table = confirmed(search)
    assert table is not None
    write_text(run.path / TABLE, table.to_csv(index=False, lineterminator="\n"))
    return Outcome(run, finished=True)


def _other_data(search: Records, run: RunFolder, trials: Sequence[PlannedTrial]) -> bool:
    """Whether the data have changed since the search, by the first trial that can tell."""
    from trainables.checkpoint import read_trial  # noqa: PLC0415
    from trainables.trainer import CHECKPOINT  # noqa: PLC0415

    for trial in trials:
        before = search.run / "trials" / trial.trial_id.rpartition("-s")[0]
        try:
            then, now = (
                read_trial(folder / CHECKPOINT)[1]["made"]["data_fingerprint"]
                for folder in (before, run.trial(trial.trial_id))
            )
        except (InputError, KeyError):
            continue  # a trial that failed has none
        return bool(then != now)
    return False
