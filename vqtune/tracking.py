"""Every trial as a Weights & Biases run, from the driver, without the search waiting for it.

One thread talks to W&B; the search only puts into its queue. Not Ray's own callback, which starts
two actors a trial.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from vqtune.wandb_link import choose_mode, quiet_settings, read_urls, write_urls

_NOT_METRICS = {"trial_id", "reason", "done", "diverged", "complete", "timestamp", "config"}


class WandbTracker(Callback):  # type: ignore[misc]
    """One W&B run a trial, grouped by search; a resumed trial goes on with its run."""

    def __init__(
        self, project: str, search: str, run_id: str, folder: Path, warn: Callable[[str], None]
    ) -> None:
        """Track into `project`, in the group `search`; `warn` takes what the user should know.

        `run_id` tells this search's W&B runs from those of another one of its name.
        """
        self.run_id = run_id
        self.project, self.search, self.folder, self.warn = project, search, folder, warn
        self.mode: Any = None  # known when W&B has answered, or has not
        self._runs: dict[str, Any] = {}
        self._urls = read_urls(folder)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Start the trial's run."""
        self._start(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log a report."""
        trial_id = trial.config["trial_id"]
        numbers = {
            key: value
            for key, value in result.items()
            if key not in _NOT_METRICS and isinstance(value, (int, float))
        }
        self._queue.put(lambda: self._runs[trial_id].log(numbers))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run with the trial's state."""
        last = trial.last_result
        state = "diverged" if last.get("diverged") else "stopped"
        self._end(trial.config["trial_id"], "complete" if last.get("complete") else state)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run as failed; a trial that cannot be built fails before it starts."""
        self._start(trial)
        self._end(trial.config["trial_id"], "failed")

    def close(self) -> None:
        """Wait until W&B has everything; at most as long as W&B itself waits."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        self.mode = choose_mode(self.warn)
        while (job := self._queue.get()) is not None:
            try:
                job()
            except Exception as error:  # whatever W&B does must not end the search
                if not self._failed:
                    self.warn(f"W&B: {type(error).__name__}: {error}")
                self._failed = True
        for run in self._runs.values():
            run.finish()

    def _start(self, trial: Any) -> None:
        config = dict(trial.config)
        self._queue.put(lambda: self._open(config))

    def _open(self, config: dict[str, Any]) -> None:
        import wandb  # noqa: PLC0415

        trial_id = config["trial_id"]
        if trial_id in self._runs:
            return  # Tune has started the trial again after a crash
        try:
            run = self._init(config)
        except wandb.errors.CommError:
            self.mode = "offline"  # the next trials need not wait for W&B as well
            raise
        run.define_metric("samples")
        run.define_metric("*", step_metric="samples")
        self._runs[trial_id] = run
        if self.mode == "online":
            self._urls[trial_id] = run.url
            write_urls(self.folder, self._urls)

    def _init(self, config: dict[str, Any]) -> Any:
        import wandb  # noqa: PLC0415

        return wandb.init(
            project=self.project,
            group=self.search,
            name=config["trial_id"],
            id=f"{self.run_id}-{config['trial_id']}",
            resume="allow",
            config=config["trial"],
            tags=[config["role"]],
            dir=str(self.folder),
            mode=self.mode,
            reinit="create_new",
            settings=quiet_settings(),
        )

    def _end(self, trial_id: str, state: str) -> None:
        def end() -> None:
            run = self._runs.pop(trial_id)
            run.tags = (*run.tags, state)
            run.summary["state"] = state
            run.finish(exit_code=int(state == "failed"))

        self._queue.put(end)
