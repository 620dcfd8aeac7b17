"""Searches in lanes that lose trials, processes, nodes and the disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.vqtune import test_faults
from tests.vqtune.conftest import ENDINGS, MIXED, MODELS, VQTUNE, Searched, run_search, vqtune
from tests.vqtune.in_lanes import SPACE, Once, check_is_plain, noted_pools, pools_of
from tests.vqtune.test_resume import all_reports, wait_for
from tests.vqtune.test_three_nodes import Nodes, reported
from vqtune.lanes import Pools
from vqtune.run_folder import RunFolder
from vqtune.search import Outcome

disk = test_faults.disk


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Pools]:
    return noted_pools(monkeypatch)


@pytest.fixture
def nodes(own_environment: None) -> Iterator[Nodes]:
    there = Nodes()
    yield there
    there.stop()


@pytest.mark.long
def test_a_trial_that_is_lost_goes_on_and_its_neighbours_do_not_notice(
    cluster: str, tmp_path: Path, made: list[Pools]
) -> None:
    """To the bit, as `test_lane_actor` shows; here by the numbers of the trials alone."""
    (tmp_path / "space.yaml").write_text(SPACE)

    def lose() -> None:
        [pool] = pools_of(made)
        ray.get(pool.actor.join.remote("another", next(iter(pool.seats.values())).config))

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


@pytest.mark.long
def test_pools_follow_the_nodes_of_a_cluster(
    nodes: Nodes, tmp_path: Path, made: list[Pools]
) -> None:
    """One of two nodes is lost, and another one joins."""
    (tmp_path / "space.yaml").write_text(
        SPACE.replace("trials: 9, samples: 320", "trials: 24, samples: 1280")
    )
    run = tmp_path / "runs" / "cluster"
    there: list[int] = []

    def change() -> None:
        nodes.workers[0].kill()
        nodes.add()

    def count() -> None:
        there.append(len(pools_of(made)))

    with Once(run, 20, change) as first, Once(run, 120, count) as second:
        searched = run_search(
            tmp_path / "space.yaml",
            nodes.address,
            storage=tmp_path / "runs",
            name="cluster",
            lanes=4,
        )
    assert first.done
    assert second.done
    assert there == [2]
    assert len(searched.states()) == 24
    assert set(searched.states().values()) == {"complete"}
    check_is_plain(searched)


@pytest.mark.long
def test_a_full_disk_ends_a_search_in_lanes_which_goes_on_without_them(
    disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("samples: 320", "samples: 1280"))
    run = disk / "full"
    command = ["search", "space.yaml", "--storage", str(disk), "--name", "full", "--seed", "2"]
    process = subprocess.Popen(
        [*VQTUNE, *command, "--lanes", "4"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_for(lambda: reported(run) > 20, 100)
    ballast = test_faults.fill(disk)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1, (out, err)
    [line] = err.splitlines()
    assert line.startswith(f"Error: no space left on the disk at {run}")
    before = all_reports(run)
    ballast.unlink()
    again = vqtune(*command, "--lanes", "off", "--resume", cwd=tmp_path)
    assert again.code == 0, again.err
    now = all_reports(run)
    assert len(now) == 9
    for name, reports in now.items():
        assert [report["samples"] for report in reports] == [160 * i for i in range(1, 9)]
        assert reports[: len(before.get(name, []))] == before.get(name, [])
    check_is_plain(Searched(run, Outcome(RunFolder(run), True), ""))
