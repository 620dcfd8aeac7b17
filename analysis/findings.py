"""All that the report tells of a run, worked out once: the page and the pictures only draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.cast import Cast
from analysis.constraint import Constraint
from analysis.flatten import row_dicts
from analysis.front import Objective
from analysis.records import Records
from analysis.specimen import Specimens
from analysis.terms import Terms


@dataclass(frozen=True)
class Findings:
    """A run, ranked and explained.

    Attributes:
        records: the run.
        ranked: the table of `ranking.ranking`, the best first.
        rows: its rows, with all that `records.trials` holds of each trial.
        objectives: what the search improves, or what the ranking was asked for.
        constraint: what a trial has to hold, if anything.
        cast: who is highlighted.
        baseline: the baseline's row of `rows`, None where it did not complete.
        best: the first of `rows` that is not the baseline's, None where there is none.
        importance: the table of `importance.importance`.
        effects: the table of `effects.technique_effects`.
        interactions: the table of `interactions.interactions`.
        curves: the table of `curves.technique_curves`.
        confirmed: the table of `confirmed.confirmed`, None where nothing was confirmed.
        specimens: what is inside the codebooks, None where nobody looked.

    """

    records: Records
    ranked: pd.DataFrame
    rows: tuple[Mapping[str, Any], ...]
    objectives: tuple[Objective, ...]
    constraint: Constraint | None
    cast: Cast
    baseline: Mapping[str, Any] | None
    best: Mapping[str, Any] | None
    importance: pd.DataFrame
    effects: pd.DataFrame
    interactions: pd.DataFrame
    curves: pd.DataFrame
    confirmed: pd.DataFrame | None
    specimens: Specimens | None

    @property
    def limit(self) -> float | None:
        """The constraint's limit in its metric's units; None without one, or without what it needs.

        A limit against the baseline needs the baseline's value.
        """
        if self.constraint is None:
            return None
        if not self.constraint.relative:
            return self.constraint.number
        value = None if self.baseline is None else self.baseline.get(self.constraint.metric)
        if value is None or not math.isfinite(value):
            return None
        return self.constraint.number * float(value)


def find(
    records: Records,
    specimens: Specimens | None,
    confirmed: pd.DataFrame | None,
    asked: Terms | None,
) -> Findings:
    """Work out everything about a run; `asked` ranks it under other terms than the search's."""
    from analysis.curves import technique_curves  # noqa: PLC0415
    from analysis.effects import technique_effects  # noqa: PLC0415
    from analysis.importance import importance  # noqa: PLC0415
    from analysis.interactions import interactions  # noqa: PLC0415
    from analysis.ranking import ranking  # noqa: PLC0415
    from analysis.terms import terms  # noqa: PLC0415

    asked = asked or terms(records.spec)
    ranked = ranking(records, asked)
    # The ranking's columns, and beside them every metric and parameter of the trial.
    known = {row["trial_id"]: row for row in row_dicts(records.trials)}
    rows = [{**known[row["trial_id"]], **row} for row in row_dicts(ranked)]
    return Findings(
        records=records,
        ranked=ranked,
        rows=tuple(rows),
        objectives=asked.objectives,
        constraint=asked.constraint,
        cast=Cast(ranked),
        baseline=next((row for row in rows if row["role"] == "baseline"), None),
        best=next((row for row in rows if row["role"] != "baseline"), None),
        importance=importance(records),
        effects=technique_effects(records),
        interactions=interactions(records),
        curves=technique_curves(records),
        confirmed=confirmed,
        specimens=specimens,
    )
