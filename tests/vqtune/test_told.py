"""What is kept of what a tracker was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtune.told import Told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "told.jsonl"


def test_nothing_is_new_twice_also_in_the_next_session(path: Path) -> None:
    told = Told(path, "vq")
    assert [told.is_new("t0001", n) for n in (10, 20, 10)] == [True, True, False]
    again = Told(path, "vq")
    assert [again.is_new("t0001", n) for n in (10, 20, 30)] == [False, False, True]
    assert again.is_new("t0002", 10)


def test_an_end_is_known(path: Path) -> None:
    told = Told(path, "vq")
    assert not told.has_end("t0001")
    assert not told.knows("t0001")
    told.end("t0001")
    assert told.has_end("t0001")
    assert Told(path, "vq").has_end("t0001")
    assert Told(path, "vq").knows("t0001")


def test_another_project_has_been_given_nothing(path: Path) -> None:
    Told(path, "vq").is_new("t0001", 10)
    other = Told(path, "other")
    assert not other.knows("t0001")
    assert other.is_new("t0001", 10)


@pytest.mark.parametrize("cut", range(1, 21))
def test_a_line_that_was_cut_short_costs_no_other(path: Path, cut: int) -> None:
    told = Told(path, "vq")
    told.is_new("t0001", 10)
    told.is_new("t0001", 20)
    path.write_text(path.read_text()[:-cut])
    again = Told(path, "vq")
    assert not again.is_new("t0001", 10)
    again.is_new("t0001", 30)
    last = Told(path, "vq")
    assert not last.is_new("t0001", 30)
    assert not last.is_new("t0001", 10)


@pytest.mark.parametrize("text", ["\x00\xff", "[]", "{}", '["vq"]', '["vq", 1, 2]', "[[], {}, []]"])
def test_what_is_no_line_of_it_is_passed_over(path: Path, text: str) -> None:
    path.write_text(text + "\n")
    assert Told(path, "vq").is_new("t0001", 10)
