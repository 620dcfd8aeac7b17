"""What is written of each trial while a search runs, as the reader of a run finds it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.trial_folder import read_trial
from tests.vqtune.conftest import lines
from trainables.config import TrialConfig
from vqtune.recorder import Recorder
from vqtune.run_folder import RunFolder

TRIAL = TrialConfig.from_dict({"training": {"samples": 320}}).to_dict()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "trials").mkdir()
    return RunFolder(tmp_path)


def tune_trial(error_file: Path | None = None) -> Any:
    config = {"trial_id": "t0001", "role": "search", "trial": TRIAL, "folder": "x", "threads": 1}
    return SimpleNamespace(config=config, error_file=error_file and str(error_file))


def report(samples: int, **more: Any) -> dict[str, Any]:
    """A report with what Tune adds to it."""
    metrics = {"samples": samples, "perplexity": 5.0, "recon_loss": 0.5, "diverged": False}
    tune = {"trial_id": "abc_00001", "pid": 7, "hostname": "h", "config": {}, "timestamp": 1}
    return metrics | {"reason": "", "complete": samples >= 320} | tune | more


def test_a_trial_as_the_reader_finds_it(run: RunFolder) -> None:
    recorder, trial = Recorder(run), tune_trial()
    recorder.on_trial_start(0, [], trial)
    assert json.loads((run.trial("t0001") / "params.json").read_text()) == {
        "trial_id": "t0001",
        "role": "search",
        "trial": TRIAL,
    }
    assert read_trial(run.trial("t0001"), ["recon_loss"]).state == "running"
    recorder.on_trial_result(0, [], trial, report(160))
    assert read_trial(run.trial("t0001"), ["recon_loss"]).state == "running"
    recorder.on_trial_result(0, [], trial, report(320, done=True))
    found = read_trial(run.trial("t0001"), ["recon_loss"])
    assert found.state == "complete"
    assert [each.samples for each in found.reports] == [160, 320]
    assert found.config == TRIAL


def test_a_line_holds_the_report_and_nothing_of_tunes(run: RunFolder) -> None:
    recorder, trial = Recorder(run), tune_trial()
    recorder.on_trial_start(0, [], trial)
    recorder.on_trial_result(0, [], trial, report(160))
    recorder.on_trial_result(0, [], trial, report(320, done=True))
    first, last = lines(run.trial("t0001"))
    assert first.keys() == {
        *("trial_id", "samples", "perplexity", "recon_loss", "diverged", "reason", "complete"),
        *("timestamp", "done"),
    }
    assert first["trial_id"] == "t0001"
    assert (first["done"], last["done"]) == (False, True)
    assert 1 < first["timestamp"] < last["timestamp"]  # not Tune's, which is in whole seconds


def test_a_stopped_trial_as_the_reader_finds_it(run: RunFolder) -> None:
    """Tune marks as done the report after which it stops a trial."""
    recorder, trial = Recorder(run), tune_trial()
    recorder.on_trial_start(0, [], trial)
    recorder.on_trial_result(0, [], trial, report(160, done=True))
    assert read_trial(run.trial("t0001"), ["recon_loss"]).state == "stopped"


def test_a_failed_trial_says_why_in_plain_text(run: RunFolder, tmp_path: Path) -> None:
    told = "Failure # 1\n\x1b[36mray::Trial.train()\x1b[39m (pid=7)\nValueError: it broke\n"
    (tmp_path / "tunes error").write_text(told)
    recorder, trial = Recorder(run), tune_trial(tmp_path / "tunes error")
    recorder.on_trial_start(0, [], trial)
    recorder.on_trial_result(0, [], trial, report(160))
    recorder.on_trial_error(0, [], trial)
    found = read_trial(run.trial("t0001"), ["recon_loss"])
    assert (found.state, found.reason) == ("failed", "ValueError: it broke")
    assert (run.trial("t0001") / "error.txt").read_text() == (
        "Failure # 1\nray::Trial.train() (pid=7)\nValueError: it broke\n"
    )
    # Begun again, by a resumed search, it has not failed.
    recorder.on_trial_start(0, [], trial)
    assert read_trial(run.trial("t0001"), ["recon_loss"]).state == "running"


def test_a_trial_that_fails_before_it_starts_is_recorded(run: RunFolder) -> None:
    recorder = Recorder(run)
    recorder.on_trial_error(0, [], tune_trial())
    found = read_trial(run.trial("t0001"), ["recon_loss"])
    assert (found.state, found.reason, found.role) == ("failed", "unknown", "search")


def test_a_resumed_trial_adds_to_its_lines(run: RunFolder) -> None:
    for samples in (80, 160):
        recorder = Recorder(run)
        recorder.on_trial_start(0, [], tune_trial())
        recorder.on_trial_result(0, [], tune_trial(), report(samples))
    assert [line["samples"] for line in lines(run.trial("t0001"))] == [80, 160]


def test_a_report_that_comes_again_is_written_once(run: RunFolder) -> None:
    """After its process died a trial sends its last report again, or trains a part again."""
    recorder, trial = Recorder(run), tune_trial()
    recorder.on_trial_start(0, [], trial)
    for samples in (80, 160, 160, 80, 160, 240):
        again = report(samples, seconds=samples / 7, time_total_s=1.0)
        recorder.on_trial_result(0, [], trial, again)
    assert [line["samples"] for line in lines(run.trial("t0001"))] == [80, 160, 240]


def test_a_next_session_knows_what_is_written(run: RunFolder) -> None:
    Recorder(run).on_trial_start(0, [], tune_trial())
    Recorder(run).on_trial_result(0, [], tune_trial(), report(80))
    Recorder(run).on_trial_result(0, [], tune_trial(), report(80))
    assert [line["samples"] for line in lines(run.trial("t0001"))] == [80]
    # Heard again, it is the report with which the trial is stopped.
    Recorder(run).on_trial_result(0, [], tune_trial(), report(80, done=True))
    assert read_trial(run.trial("t0001"), ["recon_loss"]).state == "stopped"


def test_other_numbers_take_the_place_of_those_of_before(run: RunFolder) -> None:
    """A trial that began anew on another machine is what it is now, from its first report on."""
    recorder, trial = Recorder(run), tune_trial()
    recorder.on_trial_start(0, [], trial)
    for samples, loss in ((80, 0.5), (160, 0.4), (80, 0.51), (160, 0.41), (240, 0.3)):
        recorder.on_trial_result(0, [], trial, report(samples, recon_loss=loss))
    found = read_trial(run.trial("t0001"), ["recon_loss"])
    assert [each.metrics["recon_loss"] for each in found.reports] == [0.51, 0.41, 0.3]


def test_half_a_line_of_a_killed_driver_goes_before_the_next_is_written(run: RunFolder) -> None:
    Recorder(run).on_trial_start(0, [], tune_trial())
    Recorder(run).on_trial_result(0, [], tune_trial(), report(80))
    path = run.trial("t0001") / "result.json"
    path.write_text(path.read_text() + path.read_text()[:20])
    Recorder(run).on_trial_result(0, [], tune_trial(), report(160))
    assert [json.loads(line)["samples"] for line in path.read_text().splitlines()] == [80, 160]


def test_a_note_is_told_and_not_recorded(run: RunFolder) -> None:
    told: list[str] = []
    recorder, trial = Recorder(run, told.append), tune_trial()
    recorder.on_trial_start(0, [], trial)
    recorder.on_trial_result(0, [], trial, report(80, note="its checkpoint was damaged"))
    assert told == ["t0001: its checkpoint was damaged"]
    assert "note" not in lines(run.trial("t0001"))[0]
