"""Writes each trial's records into the run, line by line, as Tune hears of them."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from trainables.patience import patiently
from trainables.search_trial import NOTE
from vqtune.run_folder import RunFolder, write_json, write_text

# Tune's own bookkeeping; the records keep what a reader of the run needs.
_DROPPED = {
    *("config", "pid", "hostname", "node_ip", "date", "experiment_tag", "iterations_since_restore"),
    *("time_since_restore", "timesteps_total", "episodes_total", "time_this_iter_s"),
    *("timesteps_since_restore", "agent_timesteps_total", "warmup_time", "trial_id"),
    *("done", "training_iteration", "should_checkpoint", NOTE),
}
# What a report that was computed again need not have in common with the first one.
_TIMES = {
    *("timestamp", "seconds", "cpu_seconds", "gpu_seconds", "steps_per_second", "time_total_s")
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Seconds between two looks at whether the run's folder is there.
_LOOKS = 2.0


class Recorder(Callback):  # type: ignore[misc]
    """params.json when a trial starts, a line of result.json a report, error.txt when it fails.

    A report is written once: one that a trial sends again after its process died is passed over.
    Where the storage is away, all wait for it.
    """

    def __init__(self, run: RunFolder, warn: Callable[[str], None] = lambda _: None) -> None:
        """Record into the run's trial folders; `warn` takes what the user should know."""
        self.run, self.warn = run, warn
        self._written: dict[str, dict[float, str]] = {}
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Notice that the folder is away also while no report comes, since the trials wait."""
        if time.monotonic() - self._looked > _LOOKS:
            self._do(self.run.trials.stat)
            self._looked = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write what the trial was given."""
        folder = self.run.trial(trial.config["trial_id"])
        self._do(lambda: self._write_params(trial))
        self._do(lambda: (folder / "error.txt").unlink(missing_ok=True))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Append the report."""
        trial_id = trial.config["trial_id"]
        if NOTE in result:
            self.warn(f"{trial_id}: {result.pop(NOTE)}")
        kept = {key: value for key, value in result.items() if key not in _DROPPED}
        # Tune's own time stamp is in whole seconds; a resumed search replays in this order.
        line = {"trial_id": trial_id, **kept, "timestamp": time.time()}
        line["done"] = bool(result.get("done"))
        written = self._lines(trial_id)
        if written.get(line["samples"]) != _told(line):
            path, data = self._lines_of(trial_id), json.dumps(line).encode() + b"\n"
            self._do(lambda: _append(path, data))
            written[line["samples"]] = _told(line)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Forget its lines."""
        self._written.pop(trial.config["trial_id"], None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write why the trial failed; one that cannot be built fails before it starts."""
        self._written.pop(trial.config["trial_id"], None)
        self._do(lambda: self._write_params(trial))
        # Not trial.get_error(), which reads a copy that Tune makes only later.
        told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "unknown"
        plain = without_colour(told)
        path = self.run.trial(trial.config["trial_id"]) / "error.txt"
        self._do(lambda: write_text(path, plain))

    def _write_params(self, trial: Any) -> None:
        folder = self.run.trial(trial.config["trial_id"])
        folder.mkdir(exist_ok=True)  # not its parents: a run that is away is not to be made anew
        given = {key: trial.config[key] for key in ("trial_id", "role", "trial")}
        write_json(folder / "params.json", given)

    def _lines(self, trial_id: str) -> dict[float, str]:
        """What result.json tells at each number of samples."""
        if trial_id not in self._written:
            self._written[trial_id] = {}
            for line in self._do(lambda: _read_whole(self._lines_of(trial_id))):
                try:
                    report = json.loads(line)
                    self._written[trial_id][report["samples"]] = _told(report)
                except (ValueError, KeyError, TypeError):
                    continue  # what others have written there
        return self._written[trial_id]

    def _lines_of(self, trial_id: str) -> Path:
        return self.run.trial(trial_id) / "result.json"

    def _do(self, work: Callable[[], Any]) -> Any:
        return patiently(work, self.run.path, self._away)

    def _away(self, error: OSError) -> None:
        where = error.filename or self.run.path
        self.warn(f"cannot reach {where} ({error.strerror}); waiting for it, up to 5 minutes")


def _read_whole(path: Path) -> list[bytes]:
    """The file's lines; a last one that a killed driver has left half-written goes."""
    try:
        with path.open("rb+") as file:
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                file.truncate(len(whole))
            return whole.splitlines()
    except FileNotFoundError:
        return []


def _append(path: Path, data: bytes) -> None:
    """Append all or nothing, also where the disk is full."""
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(before)
            raise


def without_colour(text: str) -> str:
    """A traceback as Ray tells it, without its codes for a terminal."""
    return _COLOUR.sub("", text)


def _told(line: dict[str, Any]) -> str:
    """A report without the times it took, to be compared with another."""
    return json.dumps({k: v for k, v in line.items() if k not in _TIMES}, sort_keys=True)
