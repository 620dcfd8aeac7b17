"""The trials of a run as `importance`, `effects` and `interactions` compare them, by objective."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.factors import Factor, factors, searched_values
from analysis.fidelity import Comparison, comparison, measured
from analysis.front import Objective, objectives
from analysis.records import Records


class Compared(NamedTuple):
    """The trials that have come to one number of samples.

    Attributes:
        goal: the objective compared.
        comparison: where, and what to know about it.
        values: the objective's values [n].
        factors: in what the trials differ.

    """

    goal: Objective
    comparison: Comparison
    values: npt.NDArray[np.float64]
    factors: list[Factor]


def compared(records: Records) -> Iterator[Compared]:
    """Take each of a run's objectives at the number of samples that `fidelity` chooses for it."""
    table, searched = measured(records), searched_values(records.spec)
    for goal in objectives(records.spec):
        found = comparison(records, table, goal.name)
        configs = [records.configs[trial_id] for trial_id in found.values.index]
        values = np.asarray(found.values, dtype=np.float64)
        yield Compared(goal, found, values, factors(configs, searched))
