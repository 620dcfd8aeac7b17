"""Every trial as a TensorBoard run, without asking: `tensorboard --logdir RUN/tensorboard`.

One event file a trial, which is added to: a resumed search goes on where the file ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.flatten import flatten
from vqtune.event_files import END, first_events, last_events, read_events, scalars, write_events
from vqtune.listener import Listener, Warn
from vqtune.run_folder import RunFolder

FOLDER = "tensorboard"
# TensorBoard looks for this in names; the same one in every session.
FILE = "events.out.tfevents.vqtune"


@dataclass
class _Written:
    """What a trial's file holds: whole records up to `end`, reports up to `samples`."""

    end: int = 0
    samples: int = -1
    ended: bool = False


class TensorBoard(Listener):
    """Scalars over samples, the config as hparams, and how the trial ended."""

    name = "TensorBoard"

    def __init__(self, run: RunFolder, objectives: Mapping[str, str], warn: Warn) -> None:
        """Write into the run; the objectives' last values stand beside the hparams."""
        self.objectives = list(objectives)
        self._written: dict[str, _Written] = {}
        super().__init__(run, warn)

    def is_told(self, trial_id: str) -> bool:
        """Whether the file has the trial's end."""
        return self._known(trial_id).ended

    def begun(self, trial_id: str, role: str, config: Mapping[str, Any]) -> None:
        """Make the file, with the config in it."""
        if self._known(trial_id).end:
            return
        hparams = {
            key: value if isinstance(value, (str, bool, int, float)) else str(value)
            for key, value in flatten({"role": role, **config}, ".").items()
            if value is not None
        }
        self._add(trial_id, first_events(hparams, self.objectives, time.time()))

    def reported(self, trial_id: str, report: Mapping[str, Any], at: float, snapshot: Any) -> None:
        """Add a report, unless it is there."""
        known, samples = self._known(trial_id), int(report["samples"])
        if samples > known.samples:
            values = {name: value for name, value in report.items() if name != "samples"}
            self._add(trial_id, [scalars(values, samples, at)])
            known.samples = samples

    def ended(self, trial_id: str, state: str, reason: str) -> None:
        """Say how the trial ended."""
        known = self._known(trial_id)
        if not known.ended:
            told = f"{state}: {reason}" if reason else state
            self._add(trial_id, last_events(told, max(0, known.samples), time.time()))
            known.ended = True

    def _known(self, trial_id: str) -> _Written:
        if trial_id not in self._written:
            self._written[trial_id] = _read(self._path(trial_id))
        return self._written[trial_id]

    def _add(self, trial_id: str, events: list[Any]) -> None:
        """Write behind the last whole event: a session that was killed may have begun another."""
        known = self._known(trial_id)
        known.end = write_events(self._path(trial_id), known.end, events)

    def _path(self, trial_id: str) -> Path:
        return self.run.path / FOLDER / trial_id / FILE


def _read(path: Path) -> _Written:
    found = _Written()
    for end, event in read_events(path):
        found.end = end
        for value in event.summary.value:
            found.ended = found.ended or value.tag == END
            if value.HasField("simple_value"):
                found.samples = max(found.samples, event.step)
    return found
