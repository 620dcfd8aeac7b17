"""A search whose driver is killed ten times, at random moments, ends as a search should."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from analysis.records import read_run
from tests.vqtune.conftest import SMALL, VQTUNE, optuna_states
from tests.vqtune.test_resume import all_reports, family, wait_for
from vqtune.journal import open_journal
from vqtune.pareto_asha import ParetoASHA
from vqtune.resume import take_up
from vqtune.run_folder import RunFolder
from vqtune.scheduler import make_scheduler
from vqtune.spaces import load_space

KILLS, TRIALS, SAMPLES, SEED = 10, 160, 1440, 3
SPACE = f"""
description: Trials of a second or two, stopped on two objectives
extends: base
search: {{trials: {TRIALS}, samples: {SAMPLES}, brackets: 2, grace: 0.1}}
{SMALL}
  training:
    reports: 30
    batch_size: 4
    lr: {{distribution: log_uniform_values, min: 1e-5, max: 1e-1}}
"""
Reports = dict[str, list[dict[str, Any]]]


def kill(command: list[str], folder: Path, seconds: float) -> None:
    """Run a session and kill its driver after so many seconds."""
    with (folder / "printed").open("w+") as printed:
        process = subprocess.Popen(
            [*VQTUNE, *command], cwd=folder, stdout=printed, stderr=printed, start_new_session=True
        )
        time.sleep(seconds)
        started = family(process.pid)
        printed.seek(0)
        assert process.poll() is None, printed.read()
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: not any(each.at_work() for each in started), 60)
    for each in started:
        each.kill()


@pytest.mark.long
def test_killed_ten_times_a_search_loses_and_repeats_nothing(
    own_environment: None, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    command = ["search", "space.yaml", "--name", "survivor", "--seed", str(SEED)]
    run, moments, kills = tmp_path / "runs" / "survivor", random.Random(0), 0
    ended: Reports = {}
    while kills < KILLS:
        resume = ["--resume"] if (run / "spec.yaml").exists() else []
        if run.exists() and not resume:  # killed before it had begun
            run.rename(tmp_path / f"nothing{kills}")
        kill([*command, *resume], tmp_path, moments.uniform(2, 14))
        kills += 1
        now = all_reports(run)
        assert {trial: now.get(trial) for trial in ended} == ended
        ended = {trial: reports for trial, reports in now.items() if reports[-1]["done"]}
    last = subprocess.run(
        [*VQTUNE, *command, "--resume"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert last.returncode == 0, last.stderr
    now = all_reports(run)
    assert {trial: now[trial] for trial in ended} == ended

    trials = read_run(run).trials.set_index("trial_id")
    names = ["baseline", *(f"t{n:04d}" for n in range(1, TRIALS))]
    assert sorted(trials.index) == names
    assert set(trials["state"]) <= {"complete", "stopped", "diverged"}
    told = {"complete": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL"}
    assert optuna_states(run) == [told[trials["state"][name]] for name in names[1:]]
    for reports in now.values():
        samples = [report["samples"] for report in reports]
        # Only the report at which a session was killed may have come twice.
        assert samples == sorted(samples)
        assert len(samples) - len(set(samples)) <= KILLS

    scheduler = make_scheduler(load_space(str(tmp_path / "space.yaml")).search, SAMPLES, SEED)
    assert isinstance(scheduler, ParetoASHA)
    folder = RunFolder(run)
    take_up(folder, open_journal(folder.journal)).replay(scheduler)
    # What a next session would decide is what the sessions have decided.
    assert scheduler.stopped == set(trials.index[trials["state"] == "stopped"])
    assert 10 < len(scheduler.stopped) < TRIALS - 3
    for rungs in scheduler.rungs:
        for at, rung in rungs.items():
            expected = {name: arrived(now[name], at, list(rungs)) for name in rung.arrivals}
            assert {name: one.costs for name, one in rung.arrivals.items()} == expected
    places = [{n for rung in r.values() for n in rung.arrivals} for r in scheduler.rungs]
    assert set.intersection(*places) == {"baseline"}
    assert set.union(*places) == {
        n for n in names if arrived(now[n], min(places_of(scheduler)), [])
    }


def places_of(scheduler: ParetoASHA) -> list[float]:
    return [at for rungs in scheduler.rungs for at in rungs]


def arrived(
    reports: list[dict[str, Any]], at: float, rungs: list[float]
) -> tuple[float, ...] | None:
    """The objectives with which a trial came to a rung, from its recorded lines alone."""
    later = min((one for one in rungs if one > at), default=float("inf"))
    for report in reports:
        if at <= report["samples"] < later and not (report["complete"] or report["diverged"]):
            return (-report["usage"] * report["codes"], report["recon_loss"])
    return None
