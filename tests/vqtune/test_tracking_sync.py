"""What `wandb sync` sends of the folders kept offline, and what W&B has of a resumed search."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from analysis.records import read_run
from tests.vqtune.conftest import TINY, VQTUNE, Mixed, lines, python, run_search
from tests.vqtune.wandb_files import read_runs
from tests.vqtune.wandb_server import ServedRun, WandbServer, wandb_server

# One session of a search of three trials, as Tune tells of it; a report comes again after a kill.
SESSION = """
import json, os, signal, time
from pathlib import Path
from types import SimpleNamespace
from vqtune.run_folder import RunFolder
from vqtune.tracking import WandbTracker

run = RunFolder(Path("demo"))
tracker = WandbTracker("vq", run, "1", print)
given = json.loads(Path("config.json").read_text())

def trial(trial_id):
    config = {"trial_id": trial_id, "role": "search", "trial": given}
    return SimpleNamespace(config=config, last_result={}, error_file=None)

def start(one):
    folder = run.trial(one.config["trial_id"])
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps(one.config))
    tracker.on_trial_start(0, [], one)

def report(one, samples, recorded=True):
    folder = run.trial(one.config["trial_id"])
    end = samples == 40
    result = {
        "trial_id": folder.name, "samples": samples, "recon_loss": 1 / samples, "perplexity": 2.0,
        "diverged": False, "reason": "", "complete": end, "seconds": samples / 10,
    }
    tracker.on_trial_result(0, [], one, dict(result))
    if recorded:
        with (folder / "result.json").open("a") as file:
            line = {**result, "timestamp": time.time(), "done": end}
            file.write(json.dumps(line) + "\\n")
    one.last_result = result

def wait():
    until = time.monotonic() + 30
    while not tracker._queue.empty() and time.monotonic() < until:
        time.sleep(0.05)
"""
FIRST = """
a, b = trial("t0001"), trial("t0002")
start(a); start(b)
for samples in (10, 20, 30, 40):
    report(a, samples)
report(b, 10)
report(b, 20, recorded=False)  # killed before it was recorded, so it will come again
wait()
tracker._queue.put(lambda: time.sleep(3600))  # nothing more is told
time.sleep(2)
report(b, 30)
os.kill(os.getpid(), signal.SIGKILL)
"""
SECOND = """
b, c = trial("t0002"), trial("t0003")
start(b)
report(b, 20)
report(b, 30)
report(b, 40)
tracker.on_trial_complete(0, [], b)
start(c)
report(c, 10)
tracker.close()
"""
THIRD = """
c = trial("t0003")
start(c)
for samples in (10, 20, 30, 40):
    report(c, samples)
tracker.on_trial_complete(0, [], c)
tracker.close()
"""


def wandb_sync(folders: Iterable[Path], server: WandbServer) -> None:
    """W&B's own command, on folders as they lie."""
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *sorted(map(str, folders))],
        env={**environment, **server.environment, "WANDB_MODE": "online"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sent(mixed: Mixed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ServedRun]:
    """The runs of the mixed search, by trial, as a server gets them."""
    copy = shutil.copytree(mixed.run / "wandb", tmp_path_factory.mktemp("sync") / "wandb")
    with wandb_server() as server:
        wandb_sync(copy.glob("offline-run-*"), server)
        return {run.last("displayName"): run for run in server.runs.values()}


def test_sync_sends_what_the_folders_hold(sent: dict[str, ServedRun], mixed: Mixed) -> None:
    kept = {run.run[0].display_name: run for run in read_runs(mixed.run)}
    assert sorted(sent) == sorted(kept)
    for trial_id, run in sent.items():
        check_run(run, mixed.run, trial_id)
        assert set(run.last("tags")) == kept[trial_id].tags
        assert run.last("groupName") == "mixed"
        assert run.exit_codes == [kept[trial_id].exit_code]


def check_run(run: ServedRun, folder: Path, trial_id: str) -> None:
    """Every report is there once, with its metrics, its histogram and its picture."""
    records = read_run(folder)
    trials = records.trials.set_index("trial_id")
    state, reason = trials.loc[trial_id, ["state", "reason"]]
    assert run.config == records.configs[trial_id]
    assert (run.summary["state"], run.summary["reason"]) == (state, reason)
    reports = lines(folder / "trials" / trial_id)
    assert [row["_step"] for row in run.history] == [report["samples"] for report in reports]
    for row, report in zip(run.history, reports, strict=True):
        for name in ("samples", "recon_loss", "perplexity", "usage", "seconds"):
            assert float(row[name]) == pytest.approx(report[name], rel=0, abs=0, nan_ok=True)
        assert np.count_nonzero(row["code_use"]["values"]) == report["hit_codes"]
        assert ("reconstructions" in row) == (not report["diverged"])
        for name in ("reconstructions", "sound/example", "sound/reconstruction"):
            if name in row:
                check_file(run, row[name])
        assert ("sound/example" in row) == report["complete"]


def check_file(run: ServedRun, told: dict[str, Any]) -> None:
    content = run.files[told["path"]]
    assert hashlib.sha256(content).hexdigest() == told["sha256"]
    if told["_type"] == "image-file":
        assert Image.open(io.BytesIO(content)).size == (told["width"], told["height"])
    else:
        assert len(soundfile.read(io.BytesIO(content))[0]) > 1000


@pytest.fixture(scope="module")
def sessions(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three sessions, the first killed, the second interrupted."""
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "demo" / "trials").mkdir(parents=True)
    (folder / "demo" / "spec.yaml").write_text("objectives: {perplexity: max, recon_loss: min}\n")
    config = json.loads((finished.run / "trials" / "t0001" / "params.json").read_text())["trial"]
    config["training"]["samples"] = 40
    (folder / "config.json").write_text(json.dumps(config))
    ended = python(SESSION + FIRST, cwd=folder)
    assert ended.code == -signal.SIGKILL, ended.err
    for session in (SECOND, THIRD):
        ended = python(SESSION + session, cwd=folder)
        assert (ended.code, ended.out, ended.err) == (0, "", "")
    return folder / "demo"


@pytest.mark.long
def test_a_resumed_search_goes_on_with_its_runs(sessions: Path) -> None:
    """Nothing is logged twice, nothing that was recorded is missing, and steps go on."""
    with wandb_server() as server:
        wandb_sync((sessions / "wandb").glob("offline-run-*"), server)
        assert sorted(server.runs) == ["demo-1-t0001", "demo-1-t0002", "demo-1-t0003"]
        for run in server.runs.values():
            assert [row["_step"] for row in run.history] == [10, 20, 30, 40]
            assert [row["samples"] for row in run.history] == [10, 20, 30, 40]
            assert [row["recon_loss"] for row in run.history] == [1 / 10, 1 / 20, 1 / 30, 1 / 40]
            assert run.summary["state"] == "complete"
            assert run.summary["seconds"] == 4.0
            assert set(run.last("tags")) == {"search", "complete"}
    folders = [path.name.split("-", 3)[3] for path in (sessions / "wandb").glob("offline-run-*")]
    assert sorted(folders) == sorted(
        ["demo-1-t0001"] * 2 + ["demo-1-t0002"] * 2 + ["demo-1-t0003"] * 2
    )


@pytest.mark.long
def test_a_session_that_has_nothing_to_add_writes_nothing(sessions: Path, tmp_path: Path) -> None:
    shutil.copytree(sessions.parent, tmp_path / "again")
    ended = python(SESSION + "tracker.close()", cwd=tmp_path / "again")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    before, after = (
        sorted(path.name for path in (folder / "wandb").glob("offline-run-*"))
        for folder in (sessions, tmp_path / "again" / "demo")
    )
    assert before == after


@pytest.mark.long
def test_another_project_gets_everything(sessions: Path, tmp_path: Path) -> None:
    shutil.copytree(sessions.parent, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "demo" / "wandb" / "latest-run", ignore_errors=True)
    for folder in (tmp_path / "again" / "demo" / "wandb").glob("offline-run-*"):
        shutil.rmtree(folder)
    ended = python(SESSION.replace('"vq"', '"other"') + "tracker.close()", cwd=tmp_path / "again")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    runs = read_runs(tmp_path / "again" / "demo")
    assert len(runs) == 3
    for run in runs:
        assert run.run[0].project == "other"
        assert [row["_step"] for row in run.history] == [10, 20, 30, 40]
        assert run.summary["state"] == "complete"


@pytest.mark.long
def test_thirty_trials_are_thirty_folders_that_wandb_reads(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("early_stopping: none", "grace: 0.25"))
    monkeypatch.chdir(tmp_path)
    searched = run_search(tmp_path / "tiny.yaml", cluster, name="demo", trials=30, wandb="vq")
    folders = list((searched.run / "wandb").glob("offline-run-*"))
    assert len(folders) == 30
    states = searched.states()
    assert set(states.values()) == {"complete", "stopped"}
    with wandb_server() as server:
        wandb_sync(folders, server)
        runs = {run.last("displayName"): run for run in server.runs.values()}
    assert sorted(runs) == sorted(states)
    for trial_id, run in runs.items():
        check_run(run, searched.run, trial_id)


@pytest.mark.long
def test_a_search_that_was_killed_is_whole_in_wandb(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("samples: 320", "samples: 6400"))
    asked = ["search", "tiny.yaml", "--name", "demo", "--trials", "12", "--wandb", "vq"]
    told = tmp_path / "runs" / "demo" / "wandb.jsonl"
    with subprocess.Popen(
        [*VQTUNE, *asked],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        until = time.monotonic() + 120
        while not told.exists() or len(told.read_text().splitlines()) < 15:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.kill()
    ended = subprocess.run(
        [*VQTUNE, *asked, "--resume"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    run = tmp_path / "runs" / "demo"
    folders = [p for p in (run / "wandb").glob("offline-run-*") if not p.name.endswith("summary")]
    with wandb_server() as server:
        wandb_sync(folders, server)
        runs = {run.last("displayName"): run for run in server.runs.values()}
    assert len(runs) == 12
    for trial_id, one in runs.items():
        steps = [row["_step"] for row in one.history]
        written = sorted({report["samples"] for report in lines(run / "trials" / trial_id)})
        assert steps == sorted(set(steps))
        # A row that was on its way when the process was killed may be missing.
        assert set(steps) <= set(written)
        assert len(steps) >= len(written) - 1
        assert one.summary["state"] == "complete"
