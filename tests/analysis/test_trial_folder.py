"""One trial's folder: its state, and what killed and resumed searches leave in result.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from run_folder import RunFolder, report

from analysis.trial_folder import Trial, read_trial


def read(folder: Path) -> Trial:
    return read_trial(folder, ["perplexity", "recon_loss"])


def samples(folder: Path) -> list[float]:
    return [line.samples for line in read(folder).reports]


@pytest.mark.parametrize(
    ("last", "crashed", "state"),
    [
        ({"samples": 1000, "done": True}, False, "complete"),
        ({"samples": 1008, "done": True}, False, "complete"),  # the batch does not divide it
        ({"samples": 1000, "done": False}, False, "complete"),
        ({"samples": 1000, "done": True}, True, "complete"),  # crashed once, then retried
        ({"samples": 999, "done": True}, False, "stopped"),
        ({"samples": 999, "done": True}, True, "stopped"),
        ({"samples": 999}, False, "running"),
        ({"samples": 999}, True, "failed"),
        ({"samples": 500, "done": True, "diverged": True}, False, "diverged"),
        ({"samples": 1000, "done": True, "diverged": True}, False, "diverged"),
        ({"samples": 1000, "done": True, "recon_loss": math.nan}, False, "diverged"),
        ({"samples": 500, "done": True, "perplexity": math.inf}, False, "diverged"),
        ({"samples": 500, "done": True, "perplexity": "null"}, False, "diverged"),
        ({"samples": 500, "recon_loss": math.nan}, True, "failed"),
        (None, True, "failed"),
        (None, False, "running"),
    ],
)
def test_state(run_folder: RunFolder, last: Any, crashed: bool, state: str) -> None:
    folder = run_folder.trial("a", *([{"samples": 100}, last] if last else []))
    if crashed:
        (folder / "error.txt").write_text("Failure # 1\nTraceback:\n  here\nValueError: bad\n\n")
    trial = read(folder)
    assert trial.state == state
    assert trial.reason == ("ValueError: bad" if state == "failed" else "")


def test_full_budget_is_the_trials_own(run_folder: RunFolder, config: dict[str, Any]) -> None:
    config["training"]["samples"] = 200
    short = run_folder.trial("short", {"samples": 200, "done": True}, config=config)
    long = run_folder.trial("long", {"samples": 200, "done": True})
    assert read(short).state == "complete"
    assert read(long).state == "stopped"


def test_later_lines_replace_those_that_they_repeat(run_folder: RunFolder) -> None:
    folder = run_folder.trial(
        "a",
        {"samples": 100, "perplexity": 1.0, "timestamp": 10},
        {"samples": 200, "perplexity": 2.0},
        {"samples": 300, "perplexity": 3.0, "done": True},
        {"samples": 150, "perplexity": 4.0},
        {"samples": 300, "perplexity": 5.0},
        {"samples": 300, "perplexity": 6.0, "reason": "again"},
    )
    trial = read(folder)
    rows = [(line.samples, line.metrics["perplexity"]) for line in trial.reports]
    assert rows == [(100, 1), (150, 4), (300, 6)]
    assert (trial.state, trial.reason, trial.started) == ("running", "again", 10)


def test_a_half_written_last_line_is_passed_over_wherever_it_breaks(run_folder: RunFolder) -> None:
    whole = json.dumps(report("a", 100)).encode() + b"\n"
    half = json.dumps(report("a", 200, reason="µ"), ensure_ascii=False).encode()
    folder = run_folder.trial("a")
    for cut in range(len(half)):
        (folder / "result.json").write_bytes(whole + half[:cut])
        assert samples(folder) == [100], half[:cut]
    (folder / "result.json").write_bytes(whole + half)
    assert samples(folder) == [100, 200]


def test_a_report_appended_to_a_half_written_line_is_read(run_folder: RunFolder) -> None:
    half, whole = json.dumps(report("a", 100)), json.dumps(report("a", 200)) + "\n"
    folder = run_folder.trial("a")
    for cut in range(len(half)):
        (folder / "result.json").write_text(half[:cut] + whole)
        assert samples(folder) == [200], half[:cut]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[1, 2]",
        "7",
        "null",
        "{}",
        '{"trial_id": "a"}',
        '{"trial_id": "a", "samples": NaN}',
        '{"trial_id": "a", "samples": "null"}',
        '{"trial_id": "a", "done": true}',
        "\0\0\0\0",
    ],
)
def test_lines_that_are_no_reports_are_passed_over(run_folder: RunFolder, line: str) -> None:
    folder = run_folder.trial("a", {"samples": 100})
    path = folder / "result.json"
    path.write_text(line + "\n" + path.read_text() + line)
    assert samples(folder) == [100]


def test_only_metrics_are_kept_and_nested_ones_by_path(run_folder: RunFolder) -> None:
    fields = {"samples": 1, "recon_loss": math.nan, "streams": {"0": {"hits": 7}}, "note": "x"}
    metrics = read(run_folder.trial("a", fields)).reports[0].metrics
    assert math.isnan(metrics["recon_loss"])
    assert metrics["streams/0/hits"] == 7.0
    assert metrics["training_iteration"] == 1.0
    assert not metrics.keys() & {"note", "done", "pid", "timestamp", "config/trial/seed"}
