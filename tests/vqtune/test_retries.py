"""When a trial is tried again, without a cluster; `test_three_nodes` has the cluster."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.air.execution._internal import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from ray.tune import tune as tune_module

from trainables.errors import InputError
from trainables.memory import OutOfMemoryError as OutOfGpuMemoryError
from trainables.patience import StorageError
from vqtune.retries import DEATHS, EXCEPTIONS, SHORTAGE, Actors, History, retries


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until it is moved."""
    made = SimpleNamespace(now=1e6)
    monkeypatch.setattr("vqtune.retries.time.monotonic", lambda: made.now)
    return made


def raised(error: Exception) -> Exception:
    """As the driver gets an exception of a trial's method."""
    task: Exception = RayTaskError("train", "Traceback …", error).as_instanceof_cause()
    return task


@pytest.mark.parametrize(
    "death", [ActorDiedError(), OutOfMemoryError("the node"), NodeDiedError("gone")]
)
def test_deaths_are_gone_on_from_as_long_as_reports_come(
    death: Exception, clock: SimpleNamespace
) -> None:
    history = History()
    for samples in range(80, 2000, 80):
        assert history.goes_on(death)
        history.hear({"samples": samples})
    for _ in range(DEATHS):
        assert history.goes_on(death)
        history.hear({"samples": samples})  # only sent again
        clock.now += SHORTAGE
    assert not history.goes_on(death)


def test_a_node_short_of_memory_does_not_use_up_its_trials(clock: SimpleNamespace) -> None:
    """Ray kills there whatever starts, several times a second."""
    history = History()
    for _ in range(100):
        assert history.goes_on(ActorDiedError())
        clock.now += 0.99 * SHORTAGE / 100
    clock.now += SHORTAGE / 10
    assert not history.goes_on(ActorDiedError())


def test_an_exception_is_tried_again_only_once() -> None:
    assert EXCEPTIONS == 1
    history, lost = History(), RuntimeError("CUDA error: the device was lost")
    assert history.goes_on(raised(lost))
    assert not history.goes_on(raised(lost))


def test_deaths_and_exceptions_are_counted_apart() -> None:
    history = History()
    for _ in range(DEATHS):
        assert history.goes_on(ActorDiedError())
    assert history.goes_on(raised(RuntimeError("?")))


@pytest.mark.parametrize("error", [InputError("no"), OutOfGpuMemoryError("at batch_size 64")])
def test_what_will_be_so_again_is_not_tried_again(error: Exception) -> None:
    history = History()
    assert history.goes_on(ActorDiedError())
    assert not history.goes_on(raised(error))


def test_an_exception_in_the_making_of_an_actor_is_one() -> None:
    history = History()
    making = ActorDiedError(RayTaskError("__init__", "Traceback …", RuntimeError("?")))
    assert history.goes_on(making)
    assert not history.goes_on(making)


def test_a_full_disk_is_the_searchs_end_and_not_the_trials(tmp_path: Path) -> None:
    history = History()
    full = StorageError(errno.ENOSPC, "No space left on device", str(tmp_path))
    with pytest.raises(StorageError) as caught:
        history.goes_on(raised(full))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert (history.deaths, history.exceptions) == (0, 0)


@pytest.mark.parametrize(
    "lost", [OutOfMemoryError("the node is short of memory"), RuntimeEnvSetupError("disk full")]
)
def test_every_way_to_lose_an_actor_is_one_for_tune(
    lost: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune ends the search at what is neither of its two exceptions."""
    heard: list[Exception] = []
    monkeypatch.setattr(
        RayActorManager, "_actor_task_failed", lambda _, task, error: heard.append(error)
    )
    Actors.__new__(Actors)._actor_task_failed(None, lost)
    assert isinstance(heard[0], RayActorError)
    assert str(lost).strip() in str(heard[0])
    assert History().goes_on(heard[0])


def test_tune_is_left_as_it_was() -> None:
    before = tune_module.TuneController
    with pytest.raises(KeyboardInterrupt), retries():
        assert tune_module.TuneController is not before
        raise KeyboardInterrupt
    assert tune_module.TuneController is before
