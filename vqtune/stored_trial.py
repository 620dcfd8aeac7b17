"""Stands in for an Optuna trial whose parameters are known, to ask whether they fit a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from vqtune.space_nodes import Option
from vqtune.spaces import Space


class Unfit(Exception):  # noqa: N818 - an answer, not an error
    """The parameters do not fit."""


class StoredTrial:
    """Suggests what it was given; `distributions` collects what it was asked for."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Suggest these."""
        self.params = params
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The stored float of [low, high]."""
        return float(self._stored(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """The stored integer of [low, high]."""
        return int(self._stored(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Option]) -> Any:
        """The stored choice."""
        return self._stored(name, CategoricalDistribution(choices))

    def _stored(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self.params:
            raise Unfit(name)
        value = self.params[name]
        if isinstance(distribution, CategoricalDistribution):
            # By type too: True is no 1.
            inside = any(type(c) is type(value) and c == value for c in distribution.choices)
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            inside = number and _holds(distribution, value)
        if not inside:
            raise Unfit(name)
        self.distributions[name] = distribution
        return value


def _holds(distribution: BaseDistribution, value: float) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (OverflowError, ValueError):  # NaN, or beyond all floats
        return False


def fitted(
    space: Space, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]] | None:
    """A config's values for these parameters and their distributions in the space.

    None where one is missing, outside of its distribution, or unknown to the space.
    """
    trial = StoredTrial(params)
    try:
        values = space.suggest(trial)
    except Unfit:
        return None
    return None if params.keys() - trial.distributions.keys() else (values, trial.distributions)
