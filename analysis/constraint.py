"""A condition on one metric, often against the baseline's: `recon_loss <= 1.0*baseline`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

_FORM = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w/]*)\s*(?P<sign><=|>=)\s*"
    r"(?P<number>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*(?P<relative>\*\s*baseline)?\s*"
)
ALLOWED = "METRIC <= NUMBER or METRIC <= NUMBER*baseline, with <= or >="


@dataclass(frozen=True)
class Constraint:
    """What a trial has to hold.

    Attributes:
        metric: the name of what is limited.
        sign: whether the limit is an upper or a lower one.
        number: the limit, or its ratio to the baseline's value.
        relative: whether `number` is such a ratio.

    """

    metric: str
    sign: Literal["<=", ">="]
    number: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read `recon_loss <= 1.0*baseline`; raises ValueError for any other form."""
        found = _FORM.fullmatch(text)
        if found is None or not math.isfinite(float(found["number"])):
            raise ValueError(f"found {text!r}, allowed: {ALLOWED}")
        sign: Literal["<=", ">="] = "<=" if found["sign"] == "<=" else ">="
        return cls(found["metric"], sign, float(found["number"]), found["relative"] is not None)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{self.metric} {self.sign} {self.number:g}{'*baseline' * self.relative}"

    def violation(self, value: float, baseline: float | None) -> float:
        """How far `value` is beyond the limit, in the metric's units; 0 or less where it holds.

        A limit against a baseline that is not there, or has no finite value, holds for all; a
        value that is not a number is infinitely far beyond.
        """
        limit = self.number
        if self.relative:
            if baseline is None or not math.isfinite(baseline):
                return 0.0
            limit *= baseline
        beyond = value - limit if self.sign == "<=" else limit - value
        return math.inf if math.isnan(beyond) else beyond
