"""Writes each trial's records into the run, line by line, as Tune hears of them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback

from vqtune.run_folder import RunFolder, write_json, write_text

# Tune's own bookkeeping; the records keep what a reader of the run needs.
_DROPPED = {
    *("config", "pid", "hostname", "node_ip", "date", "experiment_tag", "iterations_since_restore"),
    *("time_since_restore", "timesteps_total", "episodes_total", "time_this_iter_s"),
    *("timesteps_since_restore", "agent_timesteps_total", "warmup_time", "trial_id"),
    *("done", "training_iteration", "should_checkpoint"),
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Recorder(Callback):  # type: ignore[misc]
    """params.json when a trial starts, a line of result.json a report, error.txt when it fails."""

    def __init__(self, run: RunFolder) -> None:
        """Record into the run's trial folders."""
        self.run = run

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write what the trial was given."""
        self._write_params(trial)
        (self.run.trial(trial.config["trial_id"]) / "error.txt").unlink(missing_ok=True)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Append the report; a reader ignores a line that was cut short."""
        trial_id = trial.config["trial_id"]
        kept = {key: value for key, value in result.items() if key not in _DROPPED}
        # Tune's own time stamp is in whole seconds; a resumed search replays in this order.
        line = {"trial_id": trial_id, **kept, "timestamp": time.time()}
        line["done"] = bool(result.get("done"))
        path = self.run.trial(trial_id) / "result.json"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write why the trial failed; one that cannot be built fails before it starts."""
        self._write_params(trial)
        # Not trial.get_error(), which reads a copy that Tune makes only later.
        told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "unknown"
        plain = _COLOUR.sub("", told)
        write_text(self.run.trial(trial.config["trial_id"]) / "error.txt", plain)

    def _write_params(self, trial: Any) -> None:
        folder = self.run.trial(trial.config["trial_id"])
        folder.mkdir(parents=True, exist_ok=True)
        given = {key: trial.config[key] for key in ("trial_id", "role", "trial")}
        write_json(folder / "params.json", given)
