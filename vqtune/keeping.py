"""Which checkpoints of ended trials stay on the disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune import Callback

from analysis.front import nondominated
from trainables.kept import BEST
from trainables.trainer import CHECKPOINT
from vqtune.resume import PastTrial
from vqtune.run_folder import RunFolder


class Keeping(Callback):  # type: ignore[misc]
    """Removes checkpoints that nobody will look at, so that a long search does not fill the disk.

    - A trial that trains has its last, and its best where it got worse since (`trainables.kept`).
    - A complete one and the baseline keep the last, which is what they are ranked by.
    - One that was stopped keeps its checkpoints while no other trial's last report is at least as
      good in every objective and better in one; then they go. It is never trained on.
    - One that diverged or failed keeps what it has: the best tells what it was before.

    A trial that ended writes no more when Tune tells of it, so nothing goes that is in use.
    """

    def __init__(
        self, run: RunFolder, objectives: Mapping[str, str], past: Sequence[PastTrial], keep: bool
    ) -> None:
        """Look after the run's trials, `past` those of earlier sessions; `keep` keeps all."""
        self._run, self._keep = run, keep
        self._signs = {name: -1.0 if way == "max" else 1.0 for name, way in objectives.items()}
        self._costs = {t.trial_id: self._cost(t.last) for t in past if t.state != "failed"}
        self._stopped = {
            trial.trial_id
            for trial in past
            if trial.state == "stopped"
            and (run.remote is not None or self._path(trial.trial_id, CHECKPOINT).exists())
        }

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Learn how good a trial is."""
        self._costs[trial.config["trial_id"]] = self._cost(result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remove what has become of no use."""
        trial_id, last = trial.config["trial_id"], trial.last_result
        if last.get("complete"):
            self._remove(trial_id, BEST)
        elif not last.get("diverged"):
            self._stopped.add(trial_id)
        self._sweep()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hold no trial against one that failed."""
        self._costs.pop(trial.config["trial_id"], None)

    def _sweep(self) -> None:
        if self._keep or not self._stopped:
            return
        costs = np.array(list(self._costs.values()))
        on = nondominated(costs, ["min"] * len(self._signs))
        front = {name for name, is_on in zip(self._costs, on, strict=True) if is_on}
        for trial_id in self._stopped - front:
            self._remove(trial_id, CHECKPOINT)
            self._remove(trial_id, BEST)
        self._stopped &= front

    def _remove(self, trial_id: str, name: str) -> None:
        self._run.dropped.add(self._path(trial_id, name).relative_to(self._run.path).as_posix())
        with suppress(OSError):  # the search can do without the room
            self._path(trial_id, name).unlink(missing_ok=True)

    def _path(self, trial_id: str, name: str) -> Path:
        return self._run.trial(trial_id) / name

    def _cost(self, report: Mapping[str, Any]) -> tuple[float, ...]:
        values = (float(report.get(name, math.nan)) for name in self._signs)
        return tuple(
            math.nan if report.get("diverged") else sign * value
            for sign, value in zip(self._signs.values(), values, strict=True)
        )
