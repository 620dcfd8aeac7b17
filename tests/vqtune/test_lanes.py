"""Searches whose trials train in lanes: the same as without."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from analysis.ranking import ranking
from tests.vqtune.conftest import optuna_states, run_search
from tests.vqtune.in_lanes import (
    SPACE,
    Once,
    assert_near,
    check_is_plain,
    noted_pools,
    pools_of,
    process_of,
)
from vqtune.lanes import Lane, Pool, Pools, choose
from vqtune.run_folder import RunFolder, read_spec


def test_a_search_in_lanes_is_the_search_without(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on when all its trials die with their process, in the middle of their work.

    What is compared does not depend on the order in which results come: every report of every
    trial. The next test is of what does.
    """
    (tmp_path / "space.yaml").write_text(SPACE)
    given = {"space": tmp_path / "space.yaml", "address": cluster, "storage": tmp_path, "seed": 3}
    made, died = noted_pools(monkeypatch), list[int]()

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
    assert read_spec(RunFolder(searched.run))["lanes"] == 8


@pytest.mark.long
def test_trials_that_are_stopped_give_their_lanes_to_others(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four at a time; which are stopped depends on the order in which results come."""
    (tmp_path / "space.yaml").write_text(
        SPACE.replace("early_stopping: none", "grace: 0.25, reduction_factor: 2").replace(
            "trials: 9", "trials: 24"
        )
    )
    noted_pools(monkeypatch)
    searched = run_search(
        tmp_path / "space.yaml", cluster, storage=tmp_path / "runs", name="stopped", lanes=4
    )
    assert set(searched.states().values()) == {"complete", "stopped"}
    assert len(searched.states()) == 24
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
