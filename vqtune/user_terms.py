"""The flags by which a user ranks a run's trials: `front`, `report`, `confirm` and `export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.terms import Terms


@dataclass(frozen=True)
class UserTerms:
    """What was asked for; what is left out is as the search had it."""

    constraint: str | None = None
    objectives: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()

    def of(self, records: Records) -> Terms:
        """The terms for a run; raises RunError where they will not do."""
        from analysis.terms import terms  # noqa: PLC0415

        return terms(records.spec, self.constraint, self.objectives, self.weights)

    @property
    def flags(self) -> list[str]:
        """The flags again, for the next command."""
        constraint = [] if self.constraint is None else ["--constraint", self.constraint]
        objectives = [part for text in self.objectives for part in ("--objective", text)]
        weights = [part for text in self.weights for part in ("--weight", text)]
        return [*constraint, *objectives, *weights]


_OPTIONS = (
    click.option(
        "--constraint",
        help="What a trial has to hold to come first, such as 'recon_loss<=1.0*baseline' or none; "
        "by default what the search asked.",
    ),
    click.option(
        "--objective",
        "objectives",
        multiple=True,
        metavar="METRIC:max|min",
        help="One more objective, such as bits_per_frame:min or gpu_seconds:min.",
    ),
    click.option(
        "--weight",
        "weights",
        multiple=True,
        metavar="METRIC=NUMBER",
        help="Order the front by a weighted mean, such as perplexity=2, not by hypervolume.",
    ),
)


def user_terms(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these flags, as its argument `terms`."""

    @wraps(command)
    def gathered(
        *arguments: Any,
        constraint: str | None,
        objectives: tuple[str, ...],
        weights: tuple[str, ...],
        **options: Any,
    ) -> Any:
        return command(*arguments, terms=UserTerms(constraint, objectives, weights), **options)

    decorated: Callable[..., Any] = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
