"""How many trials run at once: as many as the cluster's nodes hold now, not when the search began.

Tune's own limit is a number that is fixed at the start. This one is counted anew, so nodes that
join are used and after one has left no trial is proposed that would have to wait. A trial that
waits was proposed too early: without what others would have shown in the meantime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from trainables.remote import below
from vqtune.cluster import Resources

# Seconds for which a count of the nodes is good.
_GOOD = 2.0


class Room(Searcher):  # type: ignore[misc]
    """Asks `searcher` only while another trial fits, and tells each trial what it takes.

    Args:
        searcher: who proposes.
        taken: what a trial takes.
        slots: how many trials of the default share fit on the nodes that are alive.
        remote: the run's URI, if its trials are to keep their checkpoints there.
    """

    def __init__(
        self,
        searcher: Searcher,
        taken: Resources,
        slots: Callable[[], int],
        remote: str | None = None,
    ) -> None:
        """Count the nodes for the first time."""
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher
        self._taken, self._slots, self._remote = taken, slots, remote
        # How many trials of the default share each that runs or waits stands for.
        self._weights: dict[str, float] = {}
        self._room, self._counted = slots(), time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """The searcher's next trial; None while there is no room for one more."""
        if time.monotonic() - self._counted > _GOOD:
            self._room, self._counted = self._slots(), time.monotonic()
        # The first may always come: where no node is left, it waits for the next that joins.
        if self._weights and sum(self._weights.values()) + 1 > self._room + 1e-9:
            return None
        suggestion = self.searcher.suggest(trial_id)
        if not isinstance(suggestion, Mapping):
            return suggestion
        self._weights[trial_id] = self._taken.weight(suggestion["trial"])
        own = self._taken.of(suggestion["trial"])
        given = {**suggestion, "threads": own.threads, "gpus": own.gpus}
        if self._remote is not None:
            given["remote"] = below(self._remote, f"trials/{suggestion['trial_id']}")
        return given

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass it on."""
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room."""
        self._weights.pop(trial_id, None)
        self.searcher.on_trial_complete(trial_id, result, error)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Pass on what Tune was given."""
        return bool(self.searcher.set_search_properties(metric, mode, config, **spec))

    def get_state(self) -> dict[str, Any]:
        """Nothing that Tune would have to keep."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}
