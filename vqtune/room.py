"""How many trials run at once: as many as the cluster's nodes hold now, not when the search began.

Tune's own limit is a number that is fixed at the start. This one is counted anew, so nodes that
join are used and after one has left no trial is proposed that would have to wait. A trial that
waits was proposed too early: without what others would have shown in the meantime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import ConcurrencyLimiter, Searcher

from vqtune.cluster import Resources

# Seconds for which a count of the nodes is good.
_GOOD = 2.0


class Room(ConcurrencyLimiter):  # type: ignore[misc]
    """Asks `searcher` only while another trial fits, and tells each trial what it takes.

    Args:
        searcher: who proposes.
        taken: what a trial takes.
        slots: how many trials of the default share fit on the nodes that are alive.
    """

    def __init__(self, searcher: Searcher, taken: Resources, slots: Callable[[], int]) -> None:
        """Count the nodes for the first time."""
        self._taken, self._slots = taken, slots
        self._weights: dict[str, float] = {}
        self._counted = time.monotonic()
        super().__init__(searcher, max_concurrent=max(1, slots()))

    def suggest(self, trial_id: str) -> Any:
        """The searcher's next trial; None while there is no room for one more."""
        if time.monotonic() - self._counted > _GOOD:
            # At least one: where no node is left it waits for the next that comes.
            self.max_concurrent = max(1, self._slots())
            self._counted = time.monotonic()
        # A trial of a large share may leave no room although it is the only one.
        full = sum(self._weights.values()) + 1 > self.max_concurrent + 1e-9
        suggestion = None if self._weights and full else super().suggest(trial_id)
        if not isinstance(suggestion, Mapping):
            return suggestion
        self._weights[trial_id] = self._taken.weight(suggestion["trial"])
        own = self._taken.of(suggestion["trial"])
        return {**suggestion, "threads": own.threads, "gpus": own.gpus}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room."""
        self._weights.pop(trial_id, None)
        super().on_trial_complete(trial_id, result, error)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}
