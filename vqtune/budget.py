"""What a search may spend in all: once it is spent, no new trial is started."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.errors import InputError

# What can be limited, by the name that the reports of a trial have for it.
KINDS = {"samples": "samples", "gpu-seconds": "gpu_seconds", "cpu-seconds": "cpu_seconds"}


@dataclass(frozen=True)
class Budget:
    """The limits of a search, by kind; none without an entry."""

    limits: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Budget:
        """Read `samples=2e6` and the like; raises InputError for any other form."""
        limits: dict[str, float] = {}
        for text in texts:
            kind, _, amount = text.partition("=")
            limit = _amount(amount)
            if kind not in KINDS or limit is None:
                raise InputError(
                    f"found {text!r}; allowed: KIND=AMOUNT with a kind of {', '.join(KINDS)} and "
                    "an amount above 0, as in samples=2e6",
                    "--budget",
                )
            if kind in limits:
                raise InputError(f"found {kind} twice; allowed: once", "--budget")
            limits[kind] = limit
        return cls(limits)

    @classmethod
    def from_spec(cls, values: Any, where: str) -> Budget:
        """Read back what a run's spec has of it."""
        sound = isinstance(values, dict) and all(
            kind in KINDS and isinstance(limit, (int, float)) for kind, limit in values.items()
        )
        if not sound:
            raise InputError(f"budget: found {values!r}, allowed: what a search has written", where)
        return cls(values)

    def spent(self, reports: Iterable[Mapping[str, Any]]) -> str | None:
        """In words what is spent, given the last report of every trial; None while nothing is."""
        reports = list(reports)
        for kind, limit in self.limits.items():
            sums = sum(_spent(report.get(KINDS[kind])) for report in reports)
            if sums >= limit:
                return f"budget spent: {sums:,.0f} of {limit:,.12g} {kind}"
        return None


def _amount(text: str) -> float | None:
    try:
        amount = float(text)
    except ValueError:
        return None
    return amount if 0 < amount < math.inf else None


def _spent(value: object) -> float:
    """Nothing where a report of an older vqtune does not say."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
