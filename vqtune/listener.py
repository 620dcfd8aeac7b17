"""Who hears of a search's trials and works on a thread of its own, so that the search never waits.

`tracking` (W&B) and `tensorboard` are such. What an earlier session of the run recorded, but was
killed before it told, is told first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ray.tune import Callback

from analysis.errors import RunError
from analysis.trial_folder import NO_METRICS, Trial, last_line, read_trial
from trainables.search_trial import SNAPSHOT
from vqtune.recorder import without_colour
from vqtune.run_folder import RunFolder, read_spec

Warn = Callable[[str], None]

# Beside what the records leave out: numbers to Python that no tracker is to draw.
_NOT_METRICS = NO_METRICS | {"complete", "training_iteration", "warmup_time"}
# Seconds that everything that is left may take after the last trial.
CLOSE = 60.0


class Listener(Callback):  # type: ignore[misc]
    """Calls `begun`, `reported` and `ended` on its thread, in the order of what happens.

    The same may be told twice, as trials go on after a crash and runs after a kill. The first
    exception is told the user, and none ends the search.
    """

    #: What the user knows it by.
    name = ""

    def __init__(self, run: RunFolder, warn: Warn) -> None:
        """Start; `warn` takes the line about what did not work."""
        self.run, self.warn = run, warn
        self._failed = False
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._begun = time.time()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._queue.put(self.catch_up)
        self._thread.start()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    # --- what a listener does with it -----------------------------------------------------------

    def prepare(self) -> None:
        """Do first, on the thread, what takes its time."""

    def begun(self, trial_id: str, role: str, config: Mapping[str, Any]) -> None:
        """A trial runs."""
        raise NotImplementedError

    def reported(self, trial_id: str, report: Mapping[str, Any], at: float, snapshot: Any) -> None:
        """A trial has reported these metrics at a Unix time; `snapshot` may be None."""
        raise NotImplementedError

    def ended(self, trial_id: str, state: str, reason: str) -> None:
        """A trial has ended."""
        raise NotImplementedError

    def is_told(self, trial_id: str) -> bool:
        """Whether everything about a trial that ended in an earlier session is told."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do last, on the thread."""

    # --- what Tune calls ------------------------------------------------------------------------

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin the trial."""
        trial_id, role, config = (trial.config[key] for key in ("trial_id", "role", "trial"))
        self._queue.put(lambda: self.begun(trial_id, role, config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Tell a report."""
        trial_id, snapshot = trial.config["trial_id"], self.take(result)
        metrics, now = metrics_of(result), time.time()
        self._queue.put(lambda: self.reported(trial_id, metrics, now, snapshot))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial: complete, stopped early or diverged."""
        last, trial_id = trial.last_result, trial.config["trial_id"]
        state = "diverged" if last.get("diverged") else "stopped"
        state = "complete" if last.get("complete") else state
        reason = last.get("reason", "")
        self._queue.put(lambda: self.ended(trial_id, state, reason))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End it as failed; a trial that cannot be built fails before it starts."""
        self.on_trial_start(iteration, trials, trial)
        trial_id, reason = trial.config["trial_id"], _raised(trial.error_file)
        self._queue.put(lambda: self.ended(trial_id, "failed", reason))

    def take(self, result: dict[str, Any]) -> Any:
        """What this listener wants of a report beside its metrics."""
        return result.get(SNAPSHOT)

    def close(self) -> None:
        """Wait until everything is told, but not for ever."""
        self._queue.put(None)
        self._thread.join(CLOSE)

    # --- on the thread --------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Tell what earlier sessions have recorded."""
        if not self.run.spec.exists():
            return
        objectives = list(read_spec(self.run)["objectives"])
        for folder in sorted(self.run.trials.glob("*/")):
            if not self.is_told(folder.name):
                try:
                    found = read_trial(folder, objectives)
                except RunError:
                    continue  # no trial, or one that has not begun
                if found.trial_id == folder.name:
                    self.attempt(partial(self._tell, found))

    def _tell(self, trial: Trial) -> None:
        before = [report for report in trial.reports if report.timestamp < self._begun]
        if not before and trial.state != "failed":
            return  # of this session
        self.begun(trial.trial_id, trial.role, trial.config)
        for report in before:
            metrics = {k: v for k, v in report.metrics.items() if k not in _NOT_METRICS}
            self.reported(trial.trial_id, metrics, report.timestamp, None)
        if trial.state != "running" and len(before) == len(trial.reports):
            self.ended(trial.trial_id, trial.state, trial.reason)

    def _work(self) -> None:
        self.attempt(self.prepare)
        while (job := self._queue.get()) is not None:
            self.attempt(job)
        self.attempt(self.finish)

    def attempt(self, job: Callable[[], None]) -> None:
        """Do it, or warn that it cannot be done."""
        try:
            job()
        except Exception as error:  # whatever it was must not end the search
            self.tell_once(f"{type(error).__name__}: {error}")

    def tell_once(self, message: str) -> None:
        """Warn, if this is the first thing that went wrong."""
        if not self._failed:
            self._failed = True
            self.warn(f"{self.name}: {' '.join(message.split())}")


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report, without Tune's own."""
    return {
        key: value
        for key, value in result.items()
        if key not in _NOT_METRICS and isinstance(value, (int, float))
    }


def _raised(error_file: str | None) -> str:
    """The last line of a traceback."""
    if not error_file:
        return ""
    try:
        text = without_colour(Path(error_file).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return last_line(text.split("\n"))
