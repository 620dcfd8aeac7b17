"""What W&B gets: one run a trial with everything in it. And nothing that it does ends a search."""

from __future__ import annotations

import inspect
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from tests.vqtune.conftest import ENDINGS, Mixed, python
from vqtune.tracking import WandbTracker
from vqtune.wandb_link import read_urls, write_urls

# --- reading a .wandb file ----------------------------------------------------------------------

_BLOCK = 32_768
_HEADER = struct.Struct("<4sHB")  # :W&B, magic number, version
_CHUNK = struct.Struct("<IHB")  # checksum, length, type


def read_wandb(path: Path) -> Iterator[Record]:
    """Records of a .wandb file, which is a LevelDB log of W&B's own protocol messages."""
    data = path.read_bytes()
    assert _HEADER.unpack_from(data) == (b":W&B", 0xBEE1, 0)
    place, begun = _HEADER.size, b""
    while place + _CHUNK.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _CHUNK.size:  # the rest of a block that has no room for a chunk is empty
            place += left
            continue
        checksum, length, kind = _CHUNK.unpack_from(data, place)
        begin = place + _CHUNK.size
        payload = data[begin : begin + length]
        assert checksum == zlib.crc32(payload, zlib.crc32(bytes([kind])))
        place = begin + length
        begun = payload if kind in (1, 2) else begun + payload  # full, first, middle, last
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(begun)
            yield record


class WandbRun:
    """What one offline run holds."""

    def __init__(self, folder: Path) -> None:
        [path] = folder.glob("*.wandb")
        records = list(read_wandb(path))
        self.run = [r.run for r in records if r.HasField("run")]
        self.history = [
            {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
            for r in records
            if r.HasField("history")
        ]
        self.config = {
            item.key: json.loads(item.value_json)
            for run in self.run
            for item in run.config.update
            if item.key
        }
        self.summary = {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for r in records
            if r.HasField("summary")
            for item in r.summary.update
        }
        self.tags = set(self.run[-1].tags)
        self.exit_code = next(r.exit.exit_code for r in records if r.HasField("exit"))


def read_runs(search: Path) -> list[WandbRun]:
    return [WandbRun(folder) for folder in search.glob("wandb/offline-run-*")]


@pytest.fixture(scope="module")
def runs(mixed: Mixed) -> dict[str, WandbRun]:
    """The W&B runs of the mixed search, by trial."""
    return {run.run[0].display_name: run for run in read_runs(mixed.run)}


def test_every_trial_has_one_run(mixed: Mixed) -> None:
    """Also the one that could not be built, and the one whose process died and began again."""
    assert sorted(run.run[0].display_name for run in read_runs(mixed.run)) == sorted(ENDINGS)


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_a_run_knows_its_search_config_and_state(
    trial_id: str, runs: dict[str, WandbRun], mixed: Mixed
) -> None:
    run, state = runs[trial_id], ENDINGS[trial_id]
    assert run.run[0].project == "vq"
    assert run.run[0].run_group == "mixed"
    assert trial_id in run.run[0].run_id
    config = {key: value for key, value in run.config.items() if key != "_wandb"}
    assert config == mixed.records.configs[trial_id]
    assert run.tags == {"baseline" if trial_id == "baseline" else "search", state}
    assert run.summary["state"] == state
    assert run.exit_code == (1 if state == "failed" else 0)


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_a_run_has_every_report(trial_id: str, runs: dict[str, WandbRun], mixed: Mixed) -> None:
    reports = mixed.reports(trial_id) if ENDINGS[trial_id] != "failed" else []
    logged = runs[trial_id].history
    assert [row["samples"] for row in logged] == [report["samples"] for report in reports]
    for row, report in zip(logged, reports, strict=True):
        for name in ("perplexity", "active_codes", "usage", "seconds", "training/recon_loss"):
            assert row[name] == pytest.approx(report[name], rel=0, abs=0, nan_ok=True)
        assert not row.keys() & {"trial_id", "reason", "timestamp", "config", "done"}


def test_runs_of_two_searches_of_one_name_do_not_meet(runs: dict[str, WandbRun]) -> None:
    """Ids differ by more than the name of the search."""
    assert all(run.run[0].run_id != f"mixed-{name}" for name, run in runs.items())
    assert len({run.run[0].run_id for run in runs.values()}) == len(runs)


# --- when W&B does not work ---------------------------------------------------------------------


def tune_trial(trial_id: str = "t0001") -> Any:
    config = {"trial_id": trial_id, "role": "search", "trial": {"seed": 1}}
    return SimpleNamespace(config=config, last_result={"complete": True})


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
    tracker = WandbTracker("vq", "demo", "demo-1", tmp_path, told.append)
    a_search(tracker)
    tracker.close()
    assert told == ["W&B: OSError: there is no room"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    tracker = WandbTracker("vq", "demo", "demo-1", tmp_path / "file" / "below", told.append)
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
        run.log = logged.append
        return run

    monkeypatch.setattr(wandb, "init", init)
    tracker = WandbTracker("vq", "demo", "demo-1", tmp_path, pytest.fail)
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
    told: list[str] = []
    tracker = WandbTracker("vq", "demo", "demo-1", tmp_path, told.append)
    tracker.mode = "online"
    a_search(tracker, trials=3)
    tracker.close()
    assert modes[-2:] == ["offline", "offline"]
    assert told == ["W&B: CommError: nobody answers"]


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
    write_urls(tmp_path, {"baseline": "https://wandb.ai/of/the/first/session"})
    tracker = WandbTracker("vq", "demo", "demo-1", tmp_path, pytest.fail)
    a_search(tracker)
    tracker.close()
    assert read_urls(tmp_path) == {
        "baseline": "https://wandb.ai/of/the/first/session",
        "t0001": "https://wandb.ai/vq/demo-1-t0001",
        "t0002": "https://wandb.ai/vq/demo-1-t0002",
    }


TRACK = f"""
from pathlib import Path
from types import SimpleNamespace
from vqtune.tracking import WandbTracker
{inspect.getsource(tune_trial).replace("-> Any", "")}
{inspect.getsource(a_search)}
tracker = WandbTracker("vq", "demo", "demo-1", Path("."), print)
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
