"""One trial's folder as Ray Tune leaves it: params.json, result.json and, after a crash, error.txt.

`records` reads every folder of a run through this module. A folder is read at any moment of a
trial's life, so half-written lines and reports repeated by a resumed trial are normal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from analysis.errors import RunError
from analysis.flatten import flatten
from analysis.regular_file import read_regular
from analysis.run_entries import NAME

State = Literal["complete", "stopped", "diverged", "failed", "running"]

# No such file comes near these.
_MOST_PARAMS, _MOST_REPORTS, _MOST_ERROR = 2 * 2**20, 2**30, 2**26
# Opening braces of half a line, or of several; a nested config has some dozens.
_MOST_HALVES = 1000

# What a line holds beside metrics: the report's own status, and what Ray Tune adds for itself.
NO_METRICS = frozenset(
    {
        "done",
        "diverged",
        "reason",
        "trial_id",
        "checkpoint_dir_name",
        "config",
        "date",
        "episodes_total",
        "experiment_id",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "timesteps_since_restore",
        "timesteps_total",
    }
)


@dataclass(frozen=True)
class Report:
    """One line of a result.json; `timestamp` in Unix seconds, infinite where the line has none."""

    metrics: dict[str, float]
    done: bool
    diverged: bool
    reason: str
    timestamp: float

    @property
    def samples(self) -> float:
        """Training examples drawn so far."""
        return self.metrics["samples"]


@dataclass(frozen=True)
class Trial:
    """What a trial's folder holds.

    Attributes:
        trial_id: Ray Tune's name of the trial.
        role: `baseline`, `search`, `ablation` or `confirm`.
        state: `complete` at its full budget with finite objectives, `stopped` before that,
            `diverged`, `failed` after a crash, else `running`, also if it was interrupted.
        folder: the folder itself.
        reason: why it ended; for a failed trial the last line of the traceback; may be empty.
        started: Unix time of the first report, infinite without one.
        config: nested config.
        reports: in strictly increasing samples.

    """

    trial_id: str
    role: str
    state: State
    folder: Path
    reason: str
    started: float
    config: dict[str, Any]
    reports: tuple[Report, ...]


def read_trial(folder: Path, objectives: Sequence[str]) -> Trial:
    """Read a trial's folder; raises RunError where its params.json will not do."""
    trial_id, role, config, budget = _read_params(folder / "params.json")
    lines = list(_read_lines(folder / "result.json"))
    reports = _latest(lines)
    last = reports[-1] if reports else None
    crash = _crash(folder / "error.txt")
    state = _state(last, budget, crash is not None, objectives)
    reason = crash if state == "failed" else last and last.reason
    return Trial(
        trial_id=trial_id,
        role=role,
        state=state,
        folder=folder,
        reason=reason or "",
        started=min((line.timestamp for line in lines), default=math.inf),
        config=config,
        reports=tuple(reports),
    )


def _read_params(path: Path) -> tuple[str, str, dict[str, Any], float]:
    """Return trial_id, role, nested config and full budget in samples, or raise RunError."""
    where = f"{path.parent.name}/{path.name}"
    try:
        params = _loads(read_regular(path, _MOST_PARAMS).decode())
        config = params["trial"]
        budget = float(config["training"]["samples"])
        config["codebook"]["update"]["kind"]  # what a technique is told by
        trial_id, role = params["trial_id"], params["role"]
    except OSError as error:
        raise RunError(f"{where}: cannot be read: {error.strerror or error}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise RunError(f"{where}: not valid JSON: {error}") from None
    except (KeyError, TypeError) as error:
        lacking = str(error) if isinstance(error, KeyError) else "mapping"
        raise RunError(
            f"{where}: expected trial_id, role, trial.training.samples and "
            f"trial.codebook.update.kind, found no {lacking}"
        ) from None
    for name, value in (("trial_id", trial_id), ("role", role)):
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise RunError(
                f"{where}: {name}: found {value!r}, allowed: up to 100 letters, digits, '.', '_' "
                "and '-', the first a letter or digit"
            )
    return trial_id, role, config, budget


def _integer(digits: str) -> int | float:
    """An integer that a table can hold, or a float; ValueError beyond all floats."""
    value = int(digits) if len(digits) < 19 else float(digits)
    if not math.isfinite(value):
        raise ValueError("an integer beyond all floats")
    return value


_loads = json.JSONDecoder(parse_int=_integer).decode


def _read_lines(path: Path) -> Iterator[Report]:
    """Yield the reports in file order, passing over lines that are none."""
    try:
        text = read_regular(path, _MOST_REPORTS).decode(errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        report = _parse(line)
        if report is not None:
            yield report


def _parse(line: str) -> Report | None:
    """Find the report that a line ends with.

    A killed driver leaves a half-written line and a resumed one appends to it, so a whole report
    can follow half of another without a line break. An inner part of a report that lost its
    end is told from a whole one by its keys.
    """
    start = line.find("{")
    for _ in range(_MOST_HALVES):
        if start < 0:
            break
        try:
            values = _loads(line[start:])
            return _report(values) if {"trial_id", "samples"} <= values.keys() else None
        except (ValueError, OverflowError):  # half a line, or a number beyond all floats
            start = line.find("{", start + 1)
        except RecursionError:  # no report is so deep, nor is half of one
            break
    return None


def _report(values: dict[str, Any]) -> Report | None:
    if not _is_finite(values["samples"]):
        return None
    timestamp = values.get("timestamp")
    return Report(
        metrics=_metrics(values),
        done=values.get("done") is True,
        diverged=values.get("diverged") is True,
        reason=str(values.get("reason") or ""),
        timestamp=float(timestamp) if _is_finite(timestamp) else math.inf,
    )


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report, those of a nested dict under joined names.

    Text is left out: it is no metric, and Ray writes a NumPy NaN as the text "null".
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        if key in NO_METRICS:
            continue
        if isinstance(value, (float, int)):
            found[key] = float(value)
        elif isinstance(value, dict):
            nested = flatten(value, "/", f"{key}/")
            found |= {k: float(v) for k, v in nested.items() if isinstance(v, (float, int))}
    return found


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _latest(lines: Iterable[Report]) -> list[Report]:
    """Keep strictly increasing samples: a line replaces all before it that went as far."""
    kept: list[Report] = []
    for line in lines:
        while kept and kept[-1].samples >= line.samples:
            kept.pop()
        kept.append(line)
    return kept


def _crash(error_file: Path) -> str | None:
    """Return the last line of a traceback, or None where the trial did not crash."""
    try:
        lines = read_regular(error_file, _MOST_ERROR).decode(errors="replace").split("\n")
    except OSError:
        return None
    return last_line(lines)


def last_line(lines: Sequence[str]) -> str:
    """The last of a traceback's lines that says something: what was raised."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _state(last: Report | None, budget: float, crashed: bool, objectives: Sequence[str]) -> State:
    """Judge a trial by its last report.

    A batch that does not divide the budget overshoots it, hence >=. A driver that was killed
    between the report at full budget and its end leaves a complete trial that is not `done`.
    """
    if last is None:
        return "failed" if crashed else "running"
    finite = all(math.isfinite(last.metrics.get(name, math.nan)) for name in objectives)
    sound = finite and not last.diverged
    if sound and last.samples >= budget:
        return "complete"
    if crashed and not last.done:
        return "failed"
    if not sound:
        return "diverged"
    return "stopped" if last.done else "running"
