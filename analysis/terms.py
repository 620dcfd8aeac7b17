"""What a user ranks a run's trials by: the search's objectives and constraint, or their own.

`vqtune front` reads the options into `Terms`, and `ranking` orders the trials by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.constraint import Constraint
from analysis.errors import RunError
from analysis.front import Direction, Objective, objectives
from analysis.records import Records

# What 'no harm' means where a run's spec says nothing, as that of an ablation.
NO_HARM = "recon_loss <= 1.0*baseline"
LIFTED = "none"

_WAYS: dict[str, Direction] = {"max": "max", "min": "min"}


@dataclass(frozen=True)
class Terms:
    """What counts in a ranking.

    Attributes:
        objectives: the metrics to improve; those of the search come first.
        constraint: what a trial has to hold; None where nothing is asked.
        weights: of every objective, 0 or more and not all 0; empty to rank by hypervolume.

    """

    objectives: tuple[Objective, ...]
    constraint: Constraint | None
    weights: Mapping[str, float]

    @property
    def names(self) -> list[str]:
        """The objectives' metrics."""
        return [goal.name for goal in self.objectives]

    @property
    def directions(self) -> list[Direction]:
        """Which way is better, in the order of `names`."""
        return [goal.direction for goal in self.objectives]

    def __str__(self) -> str:
        """Tell the order in words."""
        holding = f"those that hold {self.constraint}, " if self.constraint is not None else ""
        if self.weights:
            shares = ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())
            return f"{holding}by non-dominated rank and weights {shares}"
        goals = ", ".join(f"{goal.name}:{goal.direction}" for goal in self.objectives)
        return f"{holding}by non-dominated rank and hypervolume of {goals}"


def terms(
    spec: Mapping[str, Any],
    constraint: str | None = None,
    objectives: Sequence[str] = (),
    weights: Sequence[str] = (),
) -> Terms:
    """Read a user's own terms; what they leave open is the run's.

    Args:
        spec: the run's spec.
        constraint: such as `recon_loss <= 1.0*baseline` or `none`; where None, the search's, and
            NO_HARM where the spec names none.
        objectives: such as `bits_per_frame:min`, beside those of the search.
        weights: such as `perplexity=2`. Where one is given, an objective without one has 1.

    Raises RunError, with what was found and what is allowed.
    """
    asked = _objectives(spec, objectives)
    return Terms(asked, _constraint(spec, constraint), _weights(asked, weights))


def check_metrics(asked: Terms, records: Records) -> None:
    """Raise RunError for a metric that no trial of the run could have.

    The search's own objectives are let through: a young run may not have reported them yet.
    """
    known = metric_names(records)
    names = [name for name in asked.names if name not in records.spec["objectives"]]
    if asked.constraint is not None and asked.constraint != _of_spec(records.spec):
        names.append(asked.constraint.metric)
    for name in names:
        if name not in known:
            plain = ", ".join(metric for metric in known if "/" not in metric)
            raise RunError(
                f"metric: found {name!r}, allowed in this run: {plain}, and those of streams and "
                "losses in `vqtune records`"
            )


def metric_names(records: Records) -> list[str]:
    """The metrics that the trials of a run have reported, sorted."""
    own = {"trial_id", "role", "state", "folder", "reason"}
    return sorted(
        name
        for name in map(str, records.trials)
        if name not in own and not name.startswith("config.")
    )


def _objectives(spec: Mapping[str, Any], more: Sequence[str]) -> tuple[Objective, ...]:
    found = {goal.name: goal for goal in objectives(spec)}
    for text in more:
        name, _, way = text.replace(" ", "").rpartition(":")
        if not name or way not in _WAYS:
            raise RunError(f"objective: found {text!r}, allowed METRIC:max or METRIC:min")
        goal = found.setdefault(name, Objective(name, _WAYS[way]))
        if goal.direction != way:
            raise RunError(
                f"objective: found {text!r}, but {name}:{goal.direction} is one already; "
                "allowed: other metrics"
            )
    return tuple(found.values())


def _constraint(spec: Mapping[str, Any], text: str | None) -> Constraint | None:
    if text is None:
        return _of_spec(spec)
    if text.strip().lower() == LIFTED:
        return None
    try:
        return Constraint.parse(text)
    except ValueError as error:
        raise RunError(f"constraint: {error}, or {LIFTED}") from None


def _of_spec(spec: Mapping[str, Any]) -> Constraint | None:
    space = spec.get("space")
    settings = space.get("search") if isinstance(space, Mapping) else None
    text = settings.get("constraint", NO_HARM) if isinstance(settings, Mapping) else NO_HARM
    try:
        return None if text is None else Constraint.parse(str(text))
    except ValueError as error:
        raise RunError(f"spec.yaml: space.search.constraint: {error}") from None


def _weights(asked: Sequence[Objective], texts: Sequence[str]) -> dict[str, float]:
    names = [goal.name for goal in asked]
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.replace(" ", "").rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in names or name in found or not 0 <= value < math.inf:
            raise RunError(
                f"weight: found {text!r}, allowed METRIC=NUMBER with a number of 0 or more, once "
                f"for each of {', '.join(names)}"
            )
        found[name] = value
    weights = {name: found.get(name, 1.0) for name in names} if found else {}
    if weights and not any(weights.values()):
        raise RunError(f"weight: found 0 for {', '.join(names)}, allowed: one above 0")
    return weights
