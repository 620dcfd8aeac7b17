"""When a trial is tried again: told from Tune's own trial class, without a cluster."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from trainables.errors import InputError
from trainables.memory import OutOfMemoryError as OutOfGpuMemoryError
from trainables.patience import StorageError
from vqtune.retries import DEATHS, EXCEPTIONS, RetriedTrial, with_retries


@pytest.fixture
def trial(tmp_path: Path) -> RetriedTrial:
    made = RetriedTrial("__fake", stub=True)
    # Where Tune writes down what went wrong.
    made.storage = SimpleNamespace(trial_driver_staging_path=str(tmp_path))
    return made


def raised(error: Exception) -> Exception:
    """As the driver gets an exception of a trial's method."""
    task: Exception = RayTaskError("train", "Traceback …", error).as_instanceof_cause()
    return task


def goes_on(trial: RetriedTrial, error: Exception) -> bool:
    trial.handle_error(error)
    return bool(trial.should_recover())


@pytest.mark.parametrize(
    "death", [ActorDiedError(), OutOfMemoryError("the node"), NodeDiedError("gone")]
)
def test_deaths_are_gone_on_from_as_long_as_reports_come(
    trial: RetriedTrial, death: Exception
) -> None:
    for samples in range(80, 2000, 80):
        assert goes_on(trial, death)
        trial.update_last_result({"samples": samples})
    for _ in range(DEATHS):
        assert goes_on(trial, death)
        trial.update_last_result({"samples": samples})  # only sent again
    assert not goes_on(trial, death)


def test_an_exception_is_tried_again_only_once(trial: RetriedTrial) -> None:
    assert EXCEPTIONS == 1
    assert goes_on(trial, raised(RuntimeError("CUDA error: the device was lost")))
    assert not goes_on(trial, raised(RuntimeError("CUDA error: the device was lost")))


def test_deaths_and_exceptions_are_counted_apart(trial: RetriedTrial) -> None:
    for _ in range(DEATHS):
        assert goes_on(trial, ActorDiedError())
    assert goes_on(trial, raised(RuntimeError("?")))


@pytest.mark.parametrize("error", [InputError("no"), OutOfGpuMemoryError("at batch_size 64")])
def test_what_will_be_so_again_is_not_tried_again(trial: RetriedTrial, error: Exception) -> None:
    assert goes_on(trial, ActorDiedError())
    assert not goes_on(trial, raised(error))


def test_an_exception_in_the_making_of_an_actor_is_one(trial: RetriedTrial) -> None:
    init = ActorDiedError(RayTaskError("__init__", "Traceback …", RuntimeError("?")))
    assert goes_on(trial, init)
    assert not goes_on(trial, init)


def test_a_full_disk_is_the_searchs_end_and_not_the_trials(
    trial: RetriedTrial, tmp_path: Path
) -> None:
    full = StorageError(errno.ENOSPC, "No space left on device", str(tmp_path))
    with pytest.raises(StorageError) as caught:
        trial.handle_error(raised(full))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert trial.num_failures == 0


def test_every_trial_that_a_scheduler_sees_is_retried_so() -> None:
    scheduler = with_retries(FIFOScheduler())
    trial = Trial("__fake", stub=True)
    scheduler.on_trial_add(None, trial)
    assert type(trial) is RetriedTrial
