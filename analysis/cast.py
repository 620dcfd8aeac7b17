"""Who plays a part in every picture of a run: the baseline and the top three, each in one colour.

The colours are those of Okabe and Ito (2008), made dark enough for text on white; a number beside
each mark says the same without colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.flatten import row_dicts

TOP = 3


@dataclass(frozen=True)
class Part:
    """One trial's part.

    Attributes:
        trial_id: who plays it.
        name: `baseline`, `first`, `second` or `third`.
        tag: what stands beside its marks: `b` or its position.
        title: `baseline` or `No. 1: t0013`.
        colour: on white.

    """

    trial_id: str
    name: str
    tag: str
    title: str
    colour: str


class Cast:
    """The parts of a run, the baseline first; trials without one are not in it."""

    def __init__(self, ranked: pd.DataFrame) -> None:
        """Cast the baseline and the best TOP others of a ranking, best first."""
        rows = row_dicts(ranked)
        baseline = [row["trial_id"] for row in rows if row["role"] == "baseline"][:1]
        others = [row for row in rows if row["role"] != "baseline"][:TOP]
        parts = [Part(trial_id, "baseline", "b", "baseline", "#b84f00") for trial_id in baseline]
        for row, (name, colour) in zip(others, _OTHERS, strict=False):
            title = f"No. {row['position']}: {row['trial_id']}"
            parts.append(Part(row["trial_id"], name, str(row["position"]), title, colour))
        self._parts = {part.trial_id: part for part in parts}

    def __iter__(self) -> Iterator[Part]:
        """Go through the parts, the baseline first."""
        return iter(self._parts.values())

    def get(self, trial_id: str) -> Part | None:
        """Find a trial's part."""
        return self._parts.get(trial_id)

    def mark(self, trial_id: str) -> tuple[str, str]:
        """The name and tag of a trial's mark: `other` and nothing for one without a part."""
        part = self.get(trial_id)
        return (part.name, part.tag) if part else ("other", "")


_OTHERS = (("first", "#0067a3"), ("second", "#007a59"), ("third", "#a8487f"))
