"""A trial's checkpoints: which are there, and what happens where one is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.conftest import MIXES, make_config, make_dataset
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.kept import BEST, Kept
from trainables.trainer import CHECKPOINT, Trainer

OBJECTIVES = {"perplexity": "max", "recon_loss": "min"}
GOOD, BETTER, WORSE, OTHER = (5.0, 0.5), (6.0, 0.4), (4.0, 0.5), (7.0, 0.6)


def make_trainer(seed: int = 0) -> Trainer:
    values = make_config(MIXES["all"], samples=320, reports=8).to_dict() | {"seed": seed}
    return Trainer(TrialConfig.from_dict(values), make_dataset(), torch.device("cpu"))


def advance(trainer: Trainer, values: tuple[float, float], **more: Any) -> None:
    """Train to the next report, and say that it was as good as this."""
    trainer.advance()
    trainer.report |= {"perplexity": values[0], "recon_loss": values[1], **more}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def samples_of(folder: Path, name: str) -> int:
    loaded = make_trainer()
    loaded.load(folder, name)
    return int(loaded.report["samples"])


@pytest.mark.parametrize(
    ("reports", "best"),
    [
        ([GOOD, BETTER, BETTER], None),
        ([GOOD, OTHER], None),  # neither is better in both
        ([GOOD, WORSE], 40),
        ([GOOD, BETTER, GOOD, WORSE], 80),
        ([GOOD, WORSE, BETTER], None),
        ([GOOD, (float("nan"), 0.1)], 40),
    ],
)
def test_the_best_is_kept_only_where_the_last_is_worse(
    reports: list[tuple[float, float]], best: int | None, tmp_path: Path
) -> None:
    trainer, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    for values in reports:
        advance(trainer, values)
        kept.save(trainer)
    assert samples_of(tmp_path, CHECKPOINT) == 40 * len(reports)
    assert files(tmp_path) == {CHECKPOINT} | ({BEST} if best else set())
    if best:
        assert samples_of(tmp_path, BEST) == best


def test_a_trial_that_diverges_leaves_its_best(tmp_path: Path) -> None:
    trainer, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    advance(trainer, GOOD)
    kept.save(trainer)
    advance(trainer, BETTER, diverged=True)
    kept.save(trainer)
    assert samples_of(tmp_path, BEST) == 40


def test_a_trial_that_goes_on_knows_its_best(tmp_path: Path) -> None:
    first = make_trainer()
    kept = Kept(tmp_path, OBJECTIVES)
    for values in (BETTER, GOOD):
        advance(first, values)
        kept.save(first)
    second, again = make_trainer(), Kept(tmp_path, OBJECTIVES)
    assert again.load(second) == ""
    assert second.report["samples"] == 80
    advance(second, WORSE)
    again.save(second)
    assert samples_of(tmp_path, BEST) == 40  # not 80, which is worse than 40


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """As a disk leaves it that has lost a block: of the right length, the header whole."""
    data = path.read_bytes()
    path.write_bytes(data[:-2000] + bytes(2000))


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def pickled(path: Path) -> None:
    torch.save({"model": torch.zeros(3)}, path)


DAMAGES = [cut, empty, zeros, garbage, pickled]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_gone_back_from(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    first, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    for values in (BETTER, GOOD):
        advance(first, values)
        kept.save(first)
    damage(tmp_path / CHECKPOINT)
    second, again = make_trainer(), Kept(tmp_path, OBJECTIVES)
    note = again.load(second)
    assert note.startswith(f"{tmp_path / CHECKPOINT}: not a checkpoint of vqtune: ")
    assert note.endswith("; the trial went back to 40 samples")
    assert "\n" not in note
    second.advance()
    assert second.report["samples"] == 80
    again.save(second)
    assert samples_of(tmp_path, CHECKPOINT) == 80


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_sound_one_the_trial_begins_anew(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    first, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    for values in (BETTER, GOOD):
        advance(first, values)
        kept.save(first)
    damage(tmp_path / CHECKPOINT)
    damage(tmp_path / BEST)
    second, again = make_trainer(), Kept(tmp_path, OBJECTIVES)
    assert again.load(second).endswith("; the trial began anew")
    assert second.report == {}
    plain = make_trainer()
    for trainer in (plain, second):
        trainer.advance()
    assert second.report["recon_loss"] == plain.report["recon_loss"]
    again.save(second)
    assert files(tmp_path) == {CHECKPOINT}


def test_a_damaged_best_is_forgotten(tmp_path: Path) -> None:
    first, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    for values in (BETTER, GOOD):
        advance(first, values)
        kept.save(first)
    cut(tmp_path / BEST)
    assert Kept(tmp_path, OBJECTIVES).load(make_trainer()) == ""
    assert files(tmp_path) == {CHECKPOINT}


def test_one_of_another_config_is_no_damage(tmp_path: Path) -> None:
    first, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    advance(first, GOOD)
    kept.save(first)
    with pytest.raises(InputError, match="was written by another config"):
        Kept(tmp_path, OBJECTIVES).load(make_trainer(seed=1))


def test_where_there_are_no_links_the_best_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("trainables.kept.os.link", refused)
    trainer, kept = make_trainer(), Kept(tmp_path, OBJECTIVES)
    for values in (BETTER, GOOD):
        advance(trainer, values)
        kept.save(trainer)
    assert samples_of(tmp_path, BEST) == 40
