"""Who proposes where all trials are known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher


class FixedList(Searcher):  # type: ignore[misc]
    """Proposes each of the given Tune configs once, in order."""

    def __init__(self, configs: Iterable[Mapping[str, Any]]) -> None:
        """Propose these."""
        super().__init__()
        self._left = [dict(config) for config in configs]

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's Tune config; trial_id is Tune's own."""
        return self._left.pop(0) if self._left else str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to learn from it."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to pickle: the run's records say what is left."""
        Path(checkpoint_path).touch()
