"""Runs found and read: what a killed, resumed or young search leaves must still read right."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_folder import RunFolder

from analysis.errors import RunError
from analysis.ranking import front_table
from analysis.records import METRICS, find_run, read_run, read_spec


def states(folder: RunFolder) -> dict[str, str]:
    trials = read_run(folder.path).trials
    return dict(zip(trials["trial_id"], trials["state"], strict=True))


# --- finding -------------------------------------------------------------------------------------


def test_a_run_is_found_by_folder_and_by_name(
    run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_run(str(run_folder.path)) == run_folder.path
    assert find_run("demo", run_folder.path.parent) == run_folder.path
    monkeypatch.chdir(run_folder.path.parent.parent)
    assert find_run("demo") == Path("runs/demo")
    assert find_run("runs/demo/") == Path("runs/demo")
    Path("demo").mkdir()  # a folder of that name which is no run does not hide the run
    assert find_run("demo") == Path("runs/demo")


@pytest.mark.parametrize("name", ["nope", "", "two\nlines", "x" * 300, "nul\0", "../.."])
def test_a_missing_run_is_one_line_that_names_the_others(run_folder: RunFolder, name: str) -> None:
    runs = run_folder.path.parent
    RunFolder(runs / "other").spec()
    (runs / "no_run").mkdir()
    with pytest.raises(RunError) as caught:
        find_run(name, runs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"no run {name!r}: looked for ")
    assert message.endswith(f"runs in {runs}: demo, other")


def test_a_missing_run_where_there_are_none_or_many(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"there are no runs in {tmp_path}/runs$"):
        find_run("nope", tmp_path / "runs")
    for i in range(12):
        RunFolder(tmp_path / "runs" / f"r{i:02}").spec()
    with pytest.raises(RunError, match=r": r00, r01, .*, r09 and 2 more$"):
        find_run("nope", tmp_path / "runs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("a: [1", "not valid YAML"),
        ("\xff", "not valid YAML"),
        ("", "expected a mapping, but the file is empty"),
        ("null", "expected a mapping, found null"),
        ("- 1", "expected a mapping, found list"),
        ("name: x", "objectives: found None, allowed a mapping"),
        ("objectives: {}", "objectives: found {}, allowed a mapping"),
        ("objectives: {perplexity: up}", "objectives: found {'perplexity': 'up'}, allowed"),
        ("objectives: {perplexity: [max]}", "objectives: found {'perplexity': ['max']}, allowed"),
    ],
)
def test_a_bad_spec_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "spec.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(RunError) as caught:
        read_spec(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{tmp_path / 'spec.yaml'}: {message}")


# --- the frames ----------------------------------------------------------------------------------


def test_reports_and_trials_of_a_run(run_folder: RunFolder, config: dict[str, Any]) -> None:
    folder = run_folder.trial(
        "b", {"samples": 500}, {"samples": 1000, "done": True, "reason": "end"}, role="baseline"
    )
    config["codebook"]["respawn"] = {"period": 3200, "threshold": 0.1}
    run_folder.trial("a", {"samples": 500, "streams": {"0": {"perplexity": 7.0}}}, config=config)
    records = read_run(run_folder.path)

    assert records.spec["name"] == "demo"
    assert records.skipped == ()
    reports = records.reports
    assert reports[["trial_id", "samples"]].to_numpy().tolist() == [
        ["a", 500],
        ["b", 500],
        ["b", 1000],
    ]
    assert set(reports) == {
        "trial_id",
        "timestamp",
        *METRICS,
        "streams/0/perplexity",
        "done",
        "diverged",
    }
    assert reports["streams/0/perplexity"].tolist() == pytest.approx(
        [7, math.nan, math.nan], nan_ok=True
    )
    assert reports["done"].tolist() == [False, False, True]
    assert reports.dtypes["active_codes"] == "float64"
    assert reports.dtypes["diverged"] == "bool"

    trials = records.trials.set_index("trial_id")
    assert isinstance(records.trials.index, pd.RangeIndex)
    assert trials.loc["b", ["role", "state", "reason"]].tolist() == ["baseline", "complete", "end"]
    assert trials.loc["b", "folder"] == folder
    assert trials.loc["b", "seconds"] == 10.0
    assert trials.loc["a", "config.codebook.respawn.period"] == 3200
    assert math.isnan(trials.loc["b", "config.codebook.respawn.period"])
    assert trials.loc["a", "config.model.strides"] == (2, 2)
    assert "config.codebook.respawn" not in trials
    assert records.configs["a"] == config


def test_trials_come_in_the_order_of_their_first_reports(run_folder: RunFolder) -> None:
    run_folder.trial("e")
    run_folder.trial("d")
    run_folder.trial("c", {"samples": 1, "timestamp": 30})
    run_folder.trial("b", {"samples": 1, "timestamp": 10})
    run_folder.trial("a", {"samples": 1, "timestamp": 10}, {"samples": 2, "timestamp": 50})
    # Resumed from nothing: its first report counts, though a later line replaces it.
    run_folder.trial("0", {"samples": 1, "timestamp": 20}, {"samples": 1, "timestamp": 60})
    assert list(states(run_folder)) == ["a", "b", "0", "c", "d", "e"]


def test_an_empty_run_has_all_columns(run_folder: RunFolder) -> None:
    for _ in range(2):
        records = read_run(run_folder.path)
        assert records.reports.empty
        assert records.trials.empty
        assert {"trial_id", "done", *METRICS} <= set(records.reports)
        assert {"trial_id", "role", "state", "folder", "reason", *METRICS} <= set(records.trials)
        (run_folder.path / "trials").mkdir(exist_ok=True)


def test_a_young_trial_has_no_metrics(run_folder: RunFolder) -> None:
    run_folder.trial("a")
    records = read_run(run_folder.path)
    assert records.reports.empty
    assert records.trials["state"].tolist() == ["running"]
    assert records.trials[list(METRICS)].isna().all(axis=None)
    assert records.trials["config.codebook.size"].tolist() == [512]


def test_300_trials_of_20_reports_are_read_in_under_a_second(run_folder: RunFolder) -> None:
    lines = [{"samples": 50 * (i + 1)} for i in range(20)]
    for i in range(300):
        run_folder.trial(f"t{i:03}", *lines)
    start = time.process_time()
    records = read_run(run_folder.path)
    assert time.process_time() - start < 1
    assert len(records.reports) == 6000


# --- folders that will not do, or are not meant ---------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ('{"trial_id": "b", "tri', "not valid JSON"),
        ("[]", "expected trial_id, role, trial.training.samples and trial.codebook.update.kind"),
        ('{"trial_id": "b", "role": "search"}', "expected .*, found no 'trial'"),
        ('{"trial_id": "b", "role": "search", "trial": {}}', "expected .*, found no 'training'"),
        (
            '{"trial_id": "b", "role": "search", "trial": {"training": {"samples": 1}}}',
            "expected .*, found no 'codebook'",
        ),
        (
            '{"trial_id": "b", "role": "search", "trial": {"training": {"samples": 1}, '
            '"codebook": {"update": null}}}',
            "expected .*, found no mapping",
        ),
    ],
)
def test_a_trial_without_parameters_is_left_out_and_told(
    run_folder: RunFolder, text: str | None, message: str
) -> None:
    run_folder.complete("a", 50.0, 0.5)
    path = run_folder.complete("b", 60.0, 0.4) / "params.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    records = read_run(run_folder.path)
    assert records.trials["trial_id"].tolist() == ["a"]
    assert set(records.reports["trial_id"]) == {"a"}
    assert len(records.skipped) == 1
    with pytest.raises(AssertionError, match=f"^trial_b/params.json: {message}"):
        raise AssertionError(records.skipped[0])
    assert front_table(records)["trial_id"].tolist() == ["a"]


def test_a_copied_trial_folder_counts_once(run_folder: RunFolder) -> None:
    first = run_folder.complete("a", 50.0, 0.5)
    copy = run_folder.complete("b", 60.0, 0.4)
    (copy / "params.json").write_text((first / "params.json").read_text())
    records = read_run(run_folder.path)
    assert records.trials["perplexity"].tolist() == [50.0]
    assert records.skipped == ("trial_b: trial a was read from trial_a already",)


def test_other_files_and_checkpoints_are_not_in_the_way(run_folder: RunFolder) -> None:
    folder = run_folder.complete("a", 50.0, 0.5)
    (folder / "checkpoint_000001").mkdir()
    (run_folder.path / "trials" / "tuner.pkl").write_bytes(b"\x80")
    assert states(run_folder) == {"a": "complete"}
    assert read_run(run_folder.path).skipped == ()
