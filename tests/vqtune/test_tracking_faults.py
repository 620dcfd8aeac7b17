"""Nothing that W&B does, or does not do, ends a search or holds it up."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.vqtune.conftest import python
from tests.vqtune.wandb_files import read_runs
from tests.vqtune.wandb_server import silent_server, wandb_server
from vqtune.run_folder import RunFolder
from vqtune.tracking import WandbTracker
from vqtune.wandb_link import read_urls, write_urls


def tune_trial(trial_id: str = "t0001") -> Any:
    config = {"trial_id": trial_id, "role": "search", "trial": {"seed": 1}}
    return SimpleNamespace(config=config, last_result={"complete": True})


def demo(folder: Path) -> RunFolder:
    (folder / "demo").mkdir(exist_ok=True)
    return RunFolder(folder / "demo")


def a_search(tracker: WandbTracker, trials: int = 2) -> None:
    """What Tune calls in a search."""
    for n in range(trials):
        trial = tune_trial(f"t{n + 1:04d}")
        tracker.on_trial_start(0, [], trial)
        for samples in (10, 20):
            tracker.on_trial_result(0, [], trial, {"samples": samples, "recon_loss": 0.5})
        tracker.on_trial_complete(0, [], trial)


def test_a_wandb_that_raises_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def init(**arguments: Any) -> Any:
        raise OSError("there is no room")

    monkeypatch.setattr(wandb, "init", init)
    told: list[str] = []
    tracker = WandbTracker("vq", demo(tmp_path), "1", told.append)
    a_search(tracker)
    tracker.close()
    assert told == ["W&B: OSError: there is no room"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    tracker = WandbTracker("vq", RunFolder(tmp_path / "file" / "below"), "1", told.append)
    a_search(tracker)
    tracker.close()
    assert len(told) <= 1
    assert (tmp_path / "file").read_text() == ""


def test_a_search_does_not_wait_for_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    go, logged = threading.Event(), []

    def init(**arguments: Any) -> Any:
        assert go.wait(30)
        run = SimpleNamespace(tags=(), summary={}, finish=lambda **_: None)
        run.define_metric = lambda *_, **__: None
        run.log = lambda values, **_: logged.append(values)
        return run

    monkeypatch.setattr(wandb, "init", init)
    tracker = WandbTracker("vq", demo(tmp_path), "1", pytest.fail)
    started = time.monotonic()
    a_search(tracker, trials=50)
    assert time.monotonic() - started < 1
    assert logged == []
    go.set()
    tracker.close()
    assert len(logged) == 100


def test_a_connection_that_is_lost_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B itself waits a minute and a half for each run."""
    import wandb

    modes = []

    def init(**arguments: Any) -> Any:
        modes.append(arguments["mode"])
        raise wandb.errors.CommError("nobody answers")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("vqtune.tracking.choose_mode", lambda warn: "online")
    told: list[str] = []
    tracker = WandbTracker("vq", demo(tmp_path), "1", told.append)
    a_search(tracker, trials=3)
    tracker.close()
    assert modes == ["online"] + ["offline"] * 3  # the first one is tried again at the end
    [line] = told
    assert line.startswith("W&B: nobody answers; what it has not got is kept for wandb sync")


def test_addresses_are_kept_as_soon_as_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def init(**arguments: Any) -> Any:
        run = SimpleNamespace(tags=(), summary={}, url=f"https://wandb.ai/vq/{arguments['id']}")
        run.define_metric = run.log = run.finish = lambda *_, **__: None
        return run

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("vqtune.tracking.choose_mode", lambda warn: "online")
    write_urls(demo(tmp_path).path, {"baseline": "https://wandb.ai/of/the/first/session"})
    tracker = WandbTracker("vq", demo(tmp_path), "1", pytest.fail)
    a_search(tracker)
    tracker.close()
    assert read_urls(tmp_path / "demo") == {
        "baseline": "https://wandb.ai/of/the/first/session",
        "t0001": "https://wandb.ai/vq/demo-1-t0001",
        "t0002": "https://wandb.ai/vq/demo-1-t0002",
    }


TRACK = f"""
from pathlib import Path
from types import SimpleNamespace
from vqtune.run_folder import RunFolder
from vqtune.tracking import WandbTracker
{inspect.getsource(tune_trial).replace("-> Any", "")}
{inspect.getsource(a_search)}
tracker = WandbTracker("vq", RunFolder(Path.cwd()), "1", print)
a_search(tracker)
tracker.close()
"""


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "W&B: nobody is logged in (wandb login); the runs are kept offline for wandb sync"),
        (
            {"WANDB_API_KEY": "short"},
            "W&B: WANDB_API_KEY invalid: API key must have 40+ characters, has 5; the runs are "
            "kept offline for wandb sync",
        ),
        ({"WANDB_MODE": "offline"}, ""),
        ({"WANDB_MODE": "disabled"}, ""),
    ],
    ids=["no login", "no key", "offline", "disabled"],
)
def test_without_a_login_runs_are_kept_offline(
    environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    ended = python(TRACK, cwd=tmp_path, **{"WANDB_MODE": "online", **environment})
    assert ended.code == 0, ended.err
    assert ended.out.strip() == told
    assert ended.err == ""
    found = read_runs(tmp_path)
    if environment.get("WANDB_MODE") == "disabled":
        assert found == []
        return
    assert sorted(run.run[0].display_name for run in found) == ["t0001", "t0002"]
    for run in found:
        assert [row["samples"] for row in run.history] == [10, 20]
        assert run.summary["state"] == "complete"


# --- servers ------------------------------------------------------------------------------------

# A search whose first trials W&B gets; then it is as the test makes it, with one trial open.
SEARCH = f"""
import sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from trainables.snapshot import Snapshot
from vqtune import tracking
from vqtune.run_folder import RunFolder

tracking._INIT = tracking._FINISH = 3.0
{inspect.getsource(tune_trial).replace("-> Any", "")}
picture = np.arange(64 * 100).reshape(64, 100).astype(np.uint8)
shown = Snapshot((np.arange(512, dtype=np.uint32),), "spectrogram", (picture,), (picture,))
Path("demo").mkdir(exist_ok=True)
tracker = tracking.WandbTracker("vq", RunFolder(Path("demo")), "1", lambda line: print("!", line))

def report(trial, samples):
    result = {{"samples": samples, "recon_loss": 1 / samples, "snapshot": shown}}
    tracker.on_trial_result(0, [], trial, result)

def whole(name):
    trial = tune_trial(name)
    tracker.on_trial_start(0, [], trial)
    report(trial, 10)
    report(trial, 20)
    tracker.on_trial_complete(0, [], trial)

before = ["t0001", "t0002"]
for name in before:
    whole(name)
opened = tune_trial("t0003")
tracker.on_trial_start(0, [], opened)
report(opened, 10)
"""
ASK = """
while not tracker._queue.empty():
    time.sleep(0.05)
time.sleep(2)
print("ask", flush=True)
input()
"""
REST = """
started = time.monotonic()
report(opened, 20)
tracker.on_trial_complete(0, [], opened)
for n in range(4, 9):
    whole(f"t{n:04d}")
print("told", time.monotonic() - started < 1)
tracker.close()
print("closed", time.monotonic() - started < 60)
"""
TOLD = ["told True", "closed True"]
NAMES = [f"t{n:04d}" for n in range(1, 9)]


def test_a_server_that_works_gets_everything(tmp_path: Path) -> None:
    with wandb_server() as server:
        online = {**server.environment, "WANDB_MODE": "online"}
        ended = python(SEARCH + REST, cwd=tmp_path, **online)
        assert (ended.code, ended.out.splitlines(), ended.err) == (0, TOLD, "")
        runs = {run.last("displayName"): run for run in server.runs.values()}
    assert sorted(runs) == NAMES
    for run in runs.values():
        assert [row["_step"] for row in run.history] == [10, 20]
        assert run.summary["state"] == "complete"
        assert run.summary["reconstructions"]["path"] in run.files
        assert sum(run.history[0]["code_use"]["values"]) == 511 * 512 / 2
    assert sorted(read_urls(tmp_path / "demo")) == NAMES


@pytest.mark.long
def test_a_server_that_never_answers_is_waited_for_once(tmp_path: Path) -> None:
    with silent_server() as environment:
        ended = python(SEARCH + REST, cwd=tmp_path, **environment)
    assert (ended.code, ended.err) == (0, "")
    [warning] = [line for line in ended.out.splitlines() if line.startswith("!")]
    assert "the runs are kept offline for wandb sync" in warning
    assert [line for line in ended.out.splitlines() if line != warning] == TOLD
    runs = read_runs(tmp_path / "demo")
    assert sorted(run.run[0].display_name for run in runs) == NAMES
    for run in runs:
        assert [row["_step"] for row in run.history] == [10, 20]
        assert (run.folder / "files" / run.history[1]["reconstructions.path"]).is_file()


@pytest.mark.long
def test_a_server_that_falls_silent_does_not_hold_up_the_search(tmp_path: Path) -> None:
    """What it has not got can be sent later."""
    inherited = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    with (
        wandb_server() as server,
        subprocess.Popen(
            [sys.executable, "-c", SEARCH + ASK + REST],
            cwd=tmp_path,
            env={**inherited, **server.environment, "WANDB_MODE": "online"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ask\n"
        server.speaks.clear()
        started = time.monotonic()
        out, _ = process.communicate("\n", timeout=120)
        assert process.returncode == 0
        assert time.monotonic() - started < 90
        assert [line for line in out.splitlines() if line[0] != "!"] == TOLD
        [warning] = [line for line in out.splitlines() if line.startswith("!")]
        assert "wandb sync --include-online" in warning
        server.speaks.set()
        kept = [path for path in (tmp_path / "demo" / "wandb").glob("*run-*") if path.is_dir()]
        unsent = [path for path in kept if path.name != "latest-run"]
        synced = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, unsent)],
            env={**inherited, **server.environment, "WANDB_MODE": "online"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert synced.returncode == 0, synced.stderr
        runs = {run.last("displayName"): run for run in server.runs.values()}
    assert sorted(runs) == NAMES
    for run in runs.values():
        assert [row["_step"] for row in run.history] == [10, 20]
        assert run.summary["state"] == "complete"
