"""What a search is to do: asked for anew, or as the run's spec has it and a resume may change it.

A resume may have more or fewer trials and another budget; anything else has to be as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import InputError
from vqtune.budget import Budget
from vqtune.run_folder import RunFolder, read_spec, write_yaml
from vqtune.session import check_same
from vqtune.spaces import Space
from vqtune.trial_count import More

if TYPE_CHECKING:
    from vqtune.resume import Past


@dataclass(frozen=True)
class Plan:
    """A space with the number of trials, what they may cost, and the run to begin from.

    `keep_checkpoints` keeps also those of dominated trials that were stopped.
    """

    space: Space
    budget: Budget = field(default_factory=Budget)
    warm_start: Path | None = None
    keep_checkpoints: bool = False

    @property
    def total(self) -> int:
        """How many trials there are to be in all, the baseline among them."""
        from vqtune.searcher import proposals  # noqa: PLC0415

        return 1 + proposals(self.space)

    def over(self, past: Past) -> str | None:
        """Why there is nothing left to do; None where there is something."""
        if len(past.ended) >= self.total:
            return "nothing is left to do"
        spent = self.budget.spent(past.lasts.values())
        if spent and past.baseline_ended and not past.unfinished:
            return f"{spent}; {len(past.ended)} of {self.total} trials"
        return None

    def asked(self) -> dict[str, Any]:
        """What a run's spec says of it, beside the number of trials."""
        budget = {"budget": dict(self.budget.limits)} if self.budget.limits else {}
        warm = {"warm_start": str(self.warm_start)} if self.warm_start else {}
        keep = {"keep_checkpoints": True} if self.keep_checkpoints else {}
        return {
            "objectives": dict(self.space.search.objectives),
            "space": self.space.to_dict(),
            **budget,
            **warm,
            **keep,
        }

    def record(self, run: RunFolder) -> None:
        """Bring the spec of a resumed run up to date."""
        spec = read_spec(run)
        new = {**spec, "trials": self.space.search.trials, **self.asked()}
        if new != spec:
            write_yaml(run.spec, new)


def recorded(run: RunFolder) -> Plan:
    """The plan in the run's spec; raises InputError where it is damaged."""
    spec, where = read_spec(run), str(run.spec)
    space, warm = spec.get("space"), spec.get("warm_start")
    if not isinstance(space, dict):
        raise InputError(f"space: found {space!r}, allowed: what a search has written", where)
    if not isinstance(warm, str | None):
        raise InputError(f"warm_start: found {warm!r}, allowed: a folder", where)
    budget = Budget.from_spec(spec.get("budget", {}), where)
    start = None if warm is None else Path(warm)
    keep = spec.get("keep_checkpoints", False) is True
    return Plan(Space.from_dict(space, where), budget, start, keep)


def resumed(asked: Plan, trials: int | More | None, run: RunFolder, then: Plan, past: Past) -> Plan:
    """What a resumed search is to do, given what it is asked for now and what it was then.

    Raises:
        InputError: anything that may not change has.
    """
    same = asked.space.with_search(trials=then.space.search.trials).to_dict()
    before: Mapping[str, Any] = then.space.to_dict()
    for part in ("parameters", "search", "starts", "resources"):
        check_same(same.get(part), before.get(part), part, run, "space")
    if asked.warm_start not in (None, then.warm_start):
        raise InputError(
            f"found {asked.warm_start}; the run was started with {then.warm_start or 'none'}, "
            "allowed: the same",
            "--warm-start",
        )
    # In the order of its keys, on which proposals and values depend.
    space = then.space.with_search("--trials", trials=_total(trials, then, 1 + past.proposed))
    budget = asked.budget if asked.budget.limits else then.budget
    keep = asked.keep_checkpoints or then.keep_checkpoints
    return Plan(space, budget, then.warm_start, keep)


def _total(trials: int | More | None, then: Plan, proposed: int) -> int:
    before, space = then.space.search.trials, then.space
    if trials is None or trials == before:
        return before
    grid = space.search.sampler == "grid"
    most = 1 + len(space.enumerate_grid()) if grid else None
    if isinstance(trials, More):
        total, found = min(before, most or before) + trials.trials, f"+{trials.trials}"
    else:
        total, found = trials, str(trials)
    if most is not None and total > most:
        raise InputError(
            f"found {found}; the grid has {most - 1} points, allowed: at most {most} trials, the "
            "baseline among them",
            "--trials",
        )
    if total < proposed:
        raise InputError(
            f"found {found}; {proposed} trials have been begun, allowed: {proposed} or more",
            "--trials",
        )
    return total
