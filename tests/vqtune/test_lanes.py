"""Searches whose trials train in lanes: the same as without, whatever is lost on the way."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from analysis.ranking import ranking
from tests.vqtune.conftest import (
    ENDINGS,
    MIXED,
    MODELS,
    SMALL,
    Searched,
    lines,
    optuna_states,
    run_search,
)
from tests.vqtune.test_resume import wait_for
from trainables.config import TrialConfig
from trainables.trainer import Trainer
from vqtune.lanes import Lane, Pool, Pools, choose

TIMES = {"timestamp", "time_total_s", "seconds", "cpu_seconds", "gpu_seconds", "steps_per_second"}
# Two signatures; in float64, so that what lanes add in another order stays the same to 1e-7.
SPACE = f"""
description: Trials of two signatures that last a second or so
extends: base
search: {{trials: 9, samples: 320, sampler: random, early_stopping: none}}
{SMALL}
    respawn: {{period: {{min: 100, max: 300}}}}
    update:
      choices:
        gradient: {{kind: gradient, lr_ratio: {{min: 0.5, max: 2.0}}}}
        ema: {{kind: ema, decay: {{min: 0.9, max: 0.99}}}}
  training: {{reports: 8, batch_size: 4, precision: float64}}
"""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Pools]:
    """The pools of searches in this process."""
    found: list[Pools] = []
    start = Pools.__init__

    def noted(self: Pools, *given: Any) -> None:
        start(self, *given)
        found.append(self)

    monkeypatch.setattr(Pools, "__init__", noted)
    return found


def pools_of(made: list[Pools]) -> list[Pool]:
    return [pool for pools in made[-1]._of_node.values() for pool in pools]


def process_of(pool: Pool) -> int:
    """The id of a pool's process."""
    pid: int = ray.get(pool.actor.__ray_call__.remote(lambda _: os.getpid()))
    return pid


def assert_near(report: dict[str, Any], other: dict[str, Any]) -> None:
    for name in other.keys() - TIMES:
        mine, theirs = report[name], other[name]
        if isinstance(theirs, float):
            assert math.isclose(mine, theirs, rel_tol=1e-7, abs_tol=1e-7), name
        else:
            assert mine == theirs, name


def check_is_plain(searched: Searched) -> None:
    """Every report of every trial is there once, and is that of the trial alone."""
    for name, values in searched.records.configs.items():
        trainer = Trainer(TrialConfig.from_dict(values))
        reports = searched.reports(name)
        assert len(reports) == trainer.config.training.reports
        for report in reports:
            assert_near(report, trainer.advance())


class Once(threading.Thread):
    """Does something when a search has come to so many reports."""

    def __init__(self, run: Path, reports: int, thing: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.reports, self.thing = run, reports, thing
        self.done = False

    def __enter__(self) -> Once:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.join()

    def run(self) -> None:
        def reported() -> int:
            return sum(len(lines(trial)) for trial in self.run_folder.glob("trials/*"))

        if wait_for(lambda: reported() >= self.reports, 100):
            self.thing()
            self.done = True


def test_a_search_in_lanes_is_the_search_without(
    cluster: str, tmp_path: Path, made: list[Pools]
) -> None:
    """And goes on when all its trials die with their process, in the middle of their work.

    What is compared does not depend on the order in which results come: every report of every
    trial. The next test is of what does.
    """
    (tmp_path / "space.yaml").write_text(SPACE)
    given = {"space": tmp_path / "space.yaml", "address": cluster, "storage": tmp_path, "seed": 3}
    died: list[int] = []

    def die() -> None:
        [pool] = pools_of(made)
        died.append(len(pool.seats))
        os.kill(process_of(pool), signal.SIGKILL)

    with Once(tmp_path / "lanes", 20, die) as once:
        searched = run_search(**given, name="lanes", lanes=8)
    assert once.done
    assert died[0] > 2
    assert set(searched.states().values()) == {"complete"}
    assert optuna_states(searched.run) == ["COMPLETE"] * 8
    assert searched.printed.count("it goes on from its last report") == 1
    assert f"its process died, and with it {died[0] - 1} other trials" in searched.printed
    assert not made[0]._of_node
    check_is_plain(searched)


@pytest.mark.long
def test_one_after_the_other_trials_in_lanes_are_proposed_stopped_and_ranked_as_without(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TPE and early stopping, which depend on the order in which results come.

    So one trial at a time is let in, to the same process.
    """
    (tmp_path / "space.yaml").write_text(
        SPACE.replace(
            "sampler: random, early_stopping: none", "grace: 0.25, reduction_factor: 2"
        ).replace("trials: 9", "trials: 24")
    )
    given = {"space": tmp_path / "space.yaml", "address": cluster, "storage": tmp_path, "seed": 3}
    monkeypatch.setattr(Pools, "slots", lambda _: 1)
    lanes = run_search(**given, name="lanes", lanes=8)
    plain = run_search(**given, name="plain", lanes=None)
    assert lanes.states() == plain.states()
    assert set(lanes.states().values()) >= {"complete", "stopped"}
    assert lanes.records.configs == plain.records.configs
    assert optuna_states(lanes.run) == optuna_states(plain.run)
    for name in plain.states():
        mine, theirs = lanes.reports(name), plain.reports(name)
        assert len(mine) == len(theirs)
        for report, other in zip(mine, theirs, strict=True):
            assert_near(report, other)
    ranked = [list(ranking(each.records)["trial_id"]) for each in (lanes, plain)]
    assert ranked[0] == ranked[1]


@pytest.mark.long
def test_a_trial_that_is_lost_goes_on_and_its_neighbours_do_not_notice(
    cluster: str, tmp_path: Path, made: list[Pools]
) -> None:
    """To the bit, as `test_lane_actor` shows; here by the numbers of the trials alone."""
    (tmp_path / "space.yaml").write_text(SPACE)

    def lose() -> None:
        [pool] = pools_of(made)
        ray.get(pool.actor.leave.remote(next(iter(pool.seats))))

    with Once(tmp_path / "runs" / "lost", 20, lose) as once:
        searched = run_search(
            tmp_path / "space.yaml", cluster, storage=tmp_path / "runs", name="lost", lanes=8
        )
    assert once.done
    assert searched.printed.count("it goes on from its last report") == 1
    assert set(searched.states().values()) == {"complete"}
    check_is_plain(searched)


@pytest.mark.long
def test_trials_of_every_ending_end_so_in_lanes(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's modules that raise, diverge, and end the process of all of them."""
    space = MIXED.replace("sampler: grid", "sampler: grid, early_stopping: none")
    (tmp_path / "mixed.yaml").write_text(space)
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    searched = run_search(tmp_path / "mixed.yaml", cluster, name="mixed", seed=3, lanes=8)
    assert searched.states() == {**ENDINGS, "t0002": "complete"}
    reasons = searched.records.trials.set_index("trial_id")["reason"]
    assert "raised ValueError: there is no such model" in reasons["t0003"]
    assert "its process died" in searched.printed


@pytest.mark.long
def test_a_trial_that_always_ends_its_process_fails_alone(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixed.yaml").write_text(
        MIXED.replace("sampler: grid", "sampler: grid, early_stopping: none").replace(
            "well, idle, raises, diverges, dies", "well, dies, idle"
        )
    )
    (tmp_path / "models.py").write_text(
        MODELS.replace("self.calls > 12 and not DIED.exists()", "self.calls > 2")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vqtune.retries.SHORTAGE", 0.0)
    searched = run_search(tmp_path / "mixed.yaml", cluster, name="mixed", seed=3, lanes=8)
    assert searched.states() == {
        "baseline": "complete",
        "t0001": "complete",
        "t0002": "failed",
        "t0003": "complete",
    }


class Seats(Pool):
    """A pool without a process."""

    def __init__(self, *signatures: str) -> None:
        self.seats = {str(i): Lane.__new__(Lane) for i in range(len(signatures))}
        for lane, signature in zip(self.seats.values(), signatures, strict=True):
            lane.signature = signature


@pytest.mark.parametrize(
    ("pools", "chosen"),
    [
        ([Seats("a"), Seats()], 1),  # one that would be idle
        ([Seats("b"), Seats("a", "b")], 1),  # one with its like
        ([Seats("a", "a"), Seats("a", "b", "b"), Seats("b")], 0),  # of these the emptier
        ([Seats("b", "b"), Seats("c")], 1),  # there is none of its like
    ],
)
def test_where_a_trial_goes(pools: list[Pool], chosen: int) -> None:
    assert choose(pools, "a") is pools[chosen]
