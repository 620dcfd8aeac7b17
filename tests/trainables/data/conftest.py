"""What the tests of the data share: a cache of their own, and the shape of an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from trainables.data import dataset
from trainables.errors import InputError

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VQTUNE_CACHE", str(folder))
    forget()
    return folder


def forget() -> None:
    """Forget what this process loaded, as a new process would not know it."""
    dataset._recent.clear()


@pytest.fixture(name="forget")
def forget_fixture() -> Callable[[], None]:
    return forget


@pytest.fixture
def refused() -> Refused:
    """A context in which an InputError of one line that holds all the given parts is raised."""

    @contextmanager
    def context(*parts: str) -> Iterator[None]:
        with pytest.raises(InputError) as caught:
            yield
        line = str(caught.value)
        assert len(line.splitlines()) == 1
        for part in parts:
            assert part in line, line

    return context
