"""Which checkpoints of ended trials stay, told from Tune's calls alone and in real searches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.vqtune.conftest import Searched, run_search, vqtune
from trainables.kept import BEST
from trainables.trainer import CHECKPOINT
from vqtune.keeping import Keeping
from vqtune.plan import Plan, recorded, resumed
from vqtune.resume import PastTrial
from vqtune.run_folder import RunFolder
from vqtune.spaces import load_space

OBJECTIVES = {"perplexity": "max", "recon_loss": "min"}
GOOD, BAD, OTHER = (9.0, 0.1), (5.0, 0.5), (11.0, 0.9)


class Told:
    """A run of which Keeping is told as Tune does."""

    def __init__(self, folder: Path, keep: bool = False, past: list[PastTrial] | None = None):
        self.run = RunFolder(folder)
        self.keeping = Keeping(self.run, OBJECTIVES, past or [], keep)

    def reports(self, trial_id: str, values: tuple[float, float], **more: Any) -> Any:
        folder = self.run.trial(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CHECKPOINT, BEST):
            (folder / name).touch()
        report = {"perplexity": values[0], "recon_loss": values[1], **more}
        trial = SimpleNamespace(config={"trial_id": trial_id}, last_result=report)
        self.keeping.on_trial_result(0, [], trial, report)
        return trial

    def ends(self, trial_id: str, values: tuple[float, float], **more: Any) -> None:
        self.keeping.on_trial_complete(0, [], self.reports(trial_id, values, **more))

    def kept(self, trial_id: str) -> set[str]:
        return {path.name for path in self.run.trial(trial_id).iterdir()}


BOTH = {CHECKPOINT, BEST}


def test_a_complete_trial_keeps_the_last(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.ends("t0001", GOOD, complete=True)
    told.ends("t0002", BAD, complete=True)
    assert told.kept("t0001") == told.kept("t0002") == {CHECKPOINT}


def test_a_stopped_one_keeps_what_it_has_until_it_is_dominated(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.ends("t0001", OTHER)
    told.ends("t0002", BAD)
    assert told.kept("t0001") == told.kept("t0002") == BOTH
    told.reports("t0003", GOOD)  # still at work
    told.ends("t0004", BAD, complete=True)
    assert told.kept("t0001") == BOTH
    assert told.kept("t0002") == set()
    assert told.kept("t0003") == BOTH


def test_what_diverged_or_failed_keeps_what_it_has_and_dominates_nothing(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.ends("t0001", GOOD, diverged=True)
    told.keeping.on_trial_error(0, [], told.reports("t0002", GOOD))
    told.ends("t0003", BAD)
    assert [told.kept(name) for name in ("t0001", "t0002", "t0003")] == [BOTH] * 3


def test_all_are_kept_where_that_was_asked_for(tmp_path: Path) -> None:
    told = Told(tmp_path, keep=True)
    told.ends("t0001", BAD)
    told.ends("t0002", GOOD, complete=True)
    assert told.kept("t0001") == BOTH


def test_what_an_earlier_session_left_counts(tmp_path: Path) -> None:
    first = Told(tmp_path)
    first.ends("t0001", BAD)
    first.ends("t0002", OTHER)
    past = [
        PastTrial(name, "stopped", {"perplexity": values[0], "recon_loss": values[1]}, {})
        for name, values in (("t0001", BAD), ("t0002", OTHER))
    ]
    past.append(PastTrial("t0003", "failed", {}, {}))
    second = Told(tmp_path, past=past)
    second.ends("t0004", GOOD, complete=True)
    assert (second.kept("t0001"), second.kept("t0002")) == (set(), BOTH)


SPACE = """
description: Trials of which most are stopped
extends: base
search: {trials: 8, samples: 640, sampler: random, grace: 0.25, reduction_factor: 2}
parameters:
  data: {kind: synthetic, files: 12, seconds: 1.0}
  model: {width: 8, depth: 1}
  codebook: {size: 16, dim: 4}
  training:
    reports: 8
    batch_size: 4
    lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keeping")
    (made / "space.yaml").write_text(SPACE)
    return made


def with_checkpoint(searched: Searched) -> set[str]:
    return {path.parent.name for path in searched.run.glob(f"trials/*/{CHECKPOINT}")}


def dominated(searched: Searched) -> set[str]:
    rows = searched.records.trials.to_dict("records")
    return {
        a["trial_id"]
        for a in rows
        if any(
            b["perplexity"] >= a["perplexity"]
            and b["recon_loss"] <= a["recon_loss"]
            and (b["perplexity"], b["recon_loss"]) != (a["perplexity"], a["recon_loss"])
            for b in rows
        )
    }


@pytest.mark.long
def test_a_search_leaves_the_checkpoints_that_somebody_may_look_at(
    cluster: str, folder: Path
) -> None:
    searched = run_search(folder / "space.yaml", cluster, storage=folder / "runs", name="a", seed=1)
    states = searched.states()
    stopped = {name for name, state in states.items() if state == "stopped"}
    assert len(stopped & dominated(searched)) >= 2
    assert with_checkpoint(searched) == states.keys() - (stopped & dominated(searched))
    # What reads a run does without them.
    for command in (["front", "a"], ["export", "a", "--top", "1"], ["report", "a"]):
        ended = vqtune(*command, cwd=folder)
        assert (ended.code, ended.err) == (0, ""), ended.err


@pytest.mark.long
def test_a_search_is_asked_to_keep_them_all(cluster: str, folder: Path) -> None:
    asked: dict[str, Any] = {"storage": folder / "runs", "name": "b", "seed": 1, "trials": 5}
    searched = run_search(folder / "space.yaml", cluster, **asked, keep_checkpoints=True)
    assert "stopped" in searched.states().values()
    assert with_checkpoint(searched) == searched.states().keys()
    assert recorded(RunFolder(searched.run)).keep_checkpoints


@pytest.mark.parametrize("now", [False, True])
def test_asked_for_once_it_holds_for_later_sessions(now: bool, folder: Path) -> None:
    space = load_space(str(folder / "space.yaml"))
    past: Any = SimpleNamespace(proposed=3)
    then = Plan(space, keep_checkpoints=True)
    asked = Plan(space, keep_checkpoints=now)
    assert resumed(asked, None, RunFolder(folder), then, past).keep_checkpoints
    assert resumed(then, None, RunFolder(folder), asked, past).keep_checkpoints
    never = resumed(Plan(space), None, RunFolder(folder), Plan(space), past)
    assert "keep_checkpoints" not in never.asked()
