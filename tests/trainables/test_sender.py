"""A trial's checkpoints on their way to a URI: the last arrives, and training does not wait."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainables import sender
from trainables.kept import BEST
from trainables.sender import Sender
from trainables.trainer import CHECKPOINT


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_PAUSE", 0.05)
    monkeypatch.setattr(sender.tempfile, "tempdir", str(tmp_path))


def write(made: Sender, name: str, text: str) -> None:
    (made.folder / name).write_text(text)
    made.send()


def test_what_is_last_arrives_and_is_fetched_again(tmp_path: Path) -> None:
    far = tmp_path / "far"
    first = Sender(f"file://{far}")
    for i in range(50):
        write(first, CHECKPOINT, f"{i}")
    write(first, BEST, "best")
    assert first.close()
    assert not first.folder.exists()
    assert (far / CHECKPOINT).read_text() == "49"
    second = Sender(f"file://{far}")
    assert (second.folder / CHECKPOINT).read_text() == "49"
    assert (second.folder / BEST).read_text() == "best"
    # A best that was overtaken goes.
    (second.folder / BEST).unlink()
    write(second, CHECKPOINT, "50")
    assert second.flushed()
    assert {path.name for path in far.iterdir()} == {CHECKPOINT}
    assert second.close()


def test_two_processes_that_set_up_a_trial_do_not_meet(tmp_path: Path) -> None:
    """Tune asks for a new process, then gives the trial to one that is free, and ends the other."""
    unneeded, used = (Sender(f"file://{tmp_path}/far") for _ in range(2))
    assert unneeded.close()
    write(used, CHECKPOINT, "text")
    assert used.close()
    assert (tmp_path / "far" / CHECKPOINT).read_text() == "text"


def test_a_place_that_is_away_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_LAST", 0.3)
    made = Sender(f"file://{tmp_path}/far")
    (tmp_path / "far").touch()  # no folder
    write(made, CHECKPOINT, "first")
    assert not made.flushed()
    write(made, CHECKPOINT, "second")
    (tmp_path / "far").unlink()
    monkeypatch.setattr(sender, "_LAST", 30.0)
    assert made.flushed()
    assert (tmp_path / "far" / CHECKPOINT).read_text() == "second"
    assert made.close()
    assert not [one for one in threading.enumerate() if one.name == "vqtune-sender"]
