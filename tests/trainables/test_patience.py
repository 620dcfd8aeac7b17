"""Waiting for a storage: how long, and for what not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainables.patience import FULL, PATIENCE, StorageError, patiently


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only where somebody sleeps."""
    made = SimpleNamespace(now=0.0, pauses=[])

    def sleep(seconds: float) -> None:
        made.pauses.append(seconds)
        made.now += seconds

    monkeypatch.setattr("trainables.patience.time.sleep", sleep)
    monkeypatch.setattr("trainables.patience.time.monotonic", lambda: made.now)
    return made


def failing(times: float, number: int) -> Callable[[], int]:
    """Work that fails so many times with this error, then gives how often it was done."""
    done = 0

    def work() -> int:
        nonlocal done
        done += 1
        if done <= times:
            raise OSError(number, "told", "a/file")
        return done

    return work


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EROFS])
def test_a_storage_that_comes_back_is_waited_for(number: int, clock: SimpleNamespace) -> None:
    told: list[OSError] = []
    assert patiently(failing(20, number), "a/folder", told.append) == 21
    assert [error.errno for error in told] == [number]
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] == 0.1
    assert clock.pauses[-1] == 5.0


def test_the_wait_ends(clock: SimpleNamespace) -> None:
    with pytest.raises(StorageError) as caught:
        patiently(failing(float("inf"), errno.EIO), "a/folder")
    assert PATIENCE <= clock.now <= PATIENCE + 5
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "a/file")


@pytest.mark.parametrize("number", sorted(FULL))
def test_a_full_disk_is_not_waited_for(number: int, clock: SimpleNamespace) -> None:
    told: list[OSError] = []
    with pytest.raises(StorageError):
        patiently(failing(1, number), "a/folder", told.append)
    assert (clock.pauses, told) == ([], [])


def test_an_error_without_a_name_is_given_one() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write of a file does

    with pytest.raises(StorageError) as caught:
        patiently(full, Path("a/folder"))
    assert caught.value.filename == "a/folder"


def test_nothing_is_told_where_nothing_fails(clock: SimpleNamespace) -> None:
    assert patiently(failing(0, 0), "a/folder") == 1
    assert clock.pauses == []


def test_other_errors_are_not_the_storages(clock: SimpleNamespace) -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        patiently(work, "a/folder")
    assert clock.pauses == []
