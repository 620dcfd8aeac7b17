"""What a trial takes and how many fit, on clusters of all shapes; joining and leaving one."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import ray

from trainables.errors import InputError
from vqtune.cluster import Resources, ray_cluster, resources

Nodes = list[tuple[float, float]]  # CPUs and GPUs of each


@pytest.fixture
def nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """A cluster of such nodes."""
    have: Nodes = request.param
    found: list[dict[str, Any]] = [
        {"Alive": True, "Resources": {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})}
        for cpus, gpus in have
    ]
    found.append({"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}})
    monkeypatch.setattr(ray, "nodes", lambda: found)
    return have


CASES: list[tuple[Nodes, float | None, float | None, Resources]] = [
    # a machine without a GPU
    ([(2, 0)], None, None, Resources(1, 0, 2)),
    ([(8, 0)], 2, None, Resources(2, 0, 4)),
    ([(8, 0)], 3, None, Resources(3, 0, 2)),
    ([(2, 0)], 0.1, None, Resources(0.1, 0, 20)),
    ([(4, 0)], 1.5, 0, Resources(1.5, 0, 2)),
    # one GPU, whole and in parts
    ([(16, 1)], None, None, Resources(1, 1, 1)),
    ([(16, 1)], None, 0.25, Resources(1, 0.25, 4)),
    ([(16, 1)], None, 1 / 3, Resources(1, 1 / 3, 3)),
    ([(16, 1)], None, 0.1, Resources(1, 0.1, 10)),
    ([(16, 1)], None, 0.4, Resources(1, 0.4, 2)),  # two on a GPU, a fifth of it idle
    ([(2, 1)], None, 0.25, Resources(1, 0.25, 2)),  # CPUs are fewer
    ([(2, 1)], 0, 0.25, Resources(0, 0.25, 4)),
    ([(16, 1)], None, 0, Resources(1, 0, 16)),  # the GPU is left alone
    # several GPUs: a part is a part of one
    ([(16, 4)], None, None, Resources(1, 1, 4)),
    ([(16, 4)], None, 0.4, Resources(1, 0.4, 8)),
    ([(16, 4)], None, 0.75, Resources(1, 0.75, 4)),
    ([(16, 4)], None, 2, Resources(1, 2, 2)),
    ([(16, 4)], None, 3, Resources(1, 3, 1)),
    # several nodes: a trial is on one
    ([(4, 0), (4, 0), (4, 0)], 3, None, Resources(3, 0, 3)),
    ([(8, 0), (64, 8), (64, 8)], None, None, Resources(1, 1, 16)),
    ([(8, 0), (64, 8)], 4, 0.5, Resources(4, 0.5, 16)),
    ([(16, 3), (16, 3)], None, 2, Resources(1, 2, 2)),
]


@pytest.mark.parametrize(("nodes", "cpus", "gpus", "expected"), CASES, indirect=["nodes"])
def test_how_many_trials_fit(
    nodes: Nodes, cpus: float | None, gpus: float | None, expected: Resources
) -> None:
    assert resources(cpus, gpus) == expected


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "message"),
    [
        ([(2, 0)], 3, None, "needs 3 CPUs and 0 GPUs on one node, .* have 2 CPUs and 0 GPUs"),
        ([(2, 0)], None, 1, "needs 1 CPUs and 1 GPUs on one node, .* have 2 CPUs and 0 GPUs"),
        ([(2, 0)], None, 0.5, "needs 1 CPUs and 0.5 GPUs on one node"),
        ([(64, 4)], None, 8, "needs 1 CPUs and 8 GPUs on one node, .* have 64 CPUs and 4 GPUs"),
        (
            [(4, 0), (4, 0)],
            6,
            None,
            "needs 6 CPUs and 0 GPUs on one node, the cluster's nodes have 4 CPUs and 0 GPUs$",
        ),
        ([(8, 1), (64, 0)], 16, 1, "have 8 CPUs and 1 GPUs; 64 CPUs and 0 GPUs"),
        ([(16, 4)], None, 1.5, "^--gpus-per-trial: found 1.5; allowed: up to 1, or whole GPUs"),
        ([(16, 4)], 0, 0, "neither CPUs nor GPUs; allowed: one of them above 0"),
        ([(16, 4)], float("inf"), None, "^--cpus-per-trial: found inf; allowed: a finite number"),
        ([(16, 4)], None, float("nan"), "^--gpus-per-trial: found nan; allowed: a finite number"),
        ([], None, None, "needs 1 CPUs and 0 GPUs on one node"),
    ],
    indirect=["nodes"],
)
def test_a_trial_that_does_not_fit_is_refused(
    nodes: Nodes, cpus: float | None, gpus: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resources(cpus, gpus)
    assert "-per-trial" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("cpus", "threads"), [(0.0, 1), (0.5, 1), (1.0, 1), (2.5, 2), (16.0, 16)])
def test_a_trial_has_a_thread_for_each_whole_cpu(cpus: float, threads: int) -> None:
    assert Resources(cpus, 0, 1).threads == threads


def test_a_cluster_is_joined_and_left(cluster: str) -> None:
    for _ in range(2):
        with ray_cluster(cluster):
            assert ray.is_initialized()
            assert resources(None, None) == Resources(1, 0, 1)

            @ray.remote(num_cpus=1)  # in here, so that its code is sent, too
            def module() -> str:
                from vqtune import cluster

                return cluster.__name__

            assert ray.get(module.remote()) == "vqtune.cluster"
        assert not ray.is_initialized()


def test_a_cluster_is_left_where_the_search_fails(cluster: str) -> None:
    with pytest.raises(KeyboardInterrupt), ray_cluster(cluster):
        raise KeyboardInterrupt
    assert not ray.is_initialized()


def test_a_search_of_ones_own_joins_nobodys_cluster(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray alone would join the one that RAY_ADDRESS names, or that somebody has started here."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    with ray_cluster(None):
        assert ray.get_runtime_context().gcs_address != cluster
        assert ray.cluster_resources()["CPU"] == os.cpu_count()


@pytest.mark.parametrize("of_ctrl_c", [signal.SIG_IGN, signal.default_int_handler])
def test_a_kill_is_ctrl_c_even_where_a_shell_has_that_ignored(cluster: str, of_ctrl_c: Any) -> None:
    before = signal.signal(signal.SIGINT, of_ctrl_c)
    try:
        with pytest.raises(KeyboardInterrupt), ray_cluster(cluster):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not ray.is_initialized()
