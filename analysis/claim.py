"""Whether trainings with other seeds bear out what an exported config was said to reach."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats  # type: ignore[import-untyped]

# How sure `not met` is, one-sided.
LEVEL = 0.95
# Other seeds may always be worse by this share of a claim: 1.64 (one-sided 95% of the normal
# distribution) times √(1 + 1/2) times a deviation of 1%, even where they show a smaller one.
LEAST = 0.02
RULE = (
    f"not met: worse than claimed by more than {LEAST:.0%} and than t(95%, n - 1) · deviation · "
    "√(1 + 1/n)"
)


@dataclass(frozen=True)
class Verdict:
    """A claim held against other seeds.

    Attributes:
        claimed: the claim.
        mean: over the seeds.
        deviation: n - 1; NaN with one seed.
        behind: by how much the mean is worse than the claim, in the metric's units; below 0 where
            it is better.
        met: whether the claim holds; None where one seed cannot tell.
    """

    claimed: float
    mean: float
    deviation: float
    behind: float
    met: bool | None

    def __str__(self) -> str:
        """In a few words, as in `not met: 3.1% worse, 4.2 deviations`."""
        way = "worse" if self.behind > 0 else "better"
        share = abs(self.behind / self.claimed) if self.claimed else math.nan
        by = f"{share:.1%}" if math.isfinite(share) else f"{abs(self.behind):.3g}"
        told = f"{by} {way}" if self.behind else "equal"
        if self.met is None:
            return told
        if not self.met and self.deviation > 0:
            told += f", {self.behind / self.deviation:.1f} deviations"
        within = " within chance" if self.met and self.behind > 0 else ""
        return f"{'met' if self.met else 'not met'}{within}: {told}"


def held_against(claimed: float, values: Sequence[float], better: Literal["max", "min"]) -> Verdict:
    """Hold the value of one training against those of the same config with other seeds.

    If all come from one normal distribution, the claim differs from the mean of the n others by
    sigma sqrt(1 + 1/n). So it is not met where that mean is worse by more than Student's t
    (one-sided 95%, n - 1 degrees of freedom) times this, with the deviation of the others: where
    the claim lies outside their prediction interval. That need not be a fault of the config: a
    value that was chosen for being the best of many was lucky as well.

    Few seeds can tie by chance, and counts such as `active_codes` do so often: 505 and 505 have the
    deviation 0, and would refuse a claim of 506. So the mean has to be worse by more than `LEAST`
    of the claim as well.

    Args:
        claimed: the value that the config came with, of one seed.
        values: of the other seeds, finite, at least one.
        better: which way is better.
    """
    n, mean = len(values), statistics.fmean(values)
    behind = claimed - mean if better == "max" else mean - claimed
    if n < 2:
        return Verdict(claimed, mean, math.nan, behind, None)
    deviation = statistics.stdev(values)
    bound = float(stats.t.ppf(LEVEL, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    met = behind <= max(bound, LEAST * abs(claimed))
    return Verdict(claimed, mean, deviation, behind, met)
