"""The checkpoints of a trial that trains: the last, and the best where training got worse since."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.checkpoint import DamagedError, read_trial
from trainables.trainer import CHECKPOINT, Trainer

BEST = "best.safetensors"


class Kept:
    """A trial's folder with its checkpoints.

    `checkpoint.safetensors` is of the last report, which is what the trial is judged by.
    `best.safetensors` is there only where an earlier report was at least as good as the last in
    every objective and better in one; without it the last is the best. So a trial whose codebook
    collapses or that diverges leaves its best weights, and most trials keep one file.
    """

    def __init__(self, folder: Path, objectives: Mapping[str, str]) -> None:
        """Look after a folder; `objectives` are metrics with max or min."""
        self.last, self.best = folder / CHECKPOINT, folder / BEST
        self._signs = {name: -1.0 if way == "max" else 1.0 for name, way in objectives.items()}
        self._best: dict[str, Any] = {}

    def save(self, trainer: Trainer) -> None:
        """Write the trainer's state after its last report; can be repeated where it failed."""
        if self._best and self._worse(trainer.report):
            if not self.best.exists():
                _link(self.last, self.best)  # what was last until now
            trainer.save(self.last.parent)
        else:
            trainer.save(self.last.parent)
            self._best = trainer.report
            self.best.unlink(missing_ok=True)

    def load(self, trainer: Trainer) -> str:
        """Go on from the last checkpoint; from the best, or from nothing, where it is damaged.

        A damaged one comes from a broken disk or copy: `save` leaves none. It stays until the next
        is written. Returns what the user should know, nothing if all is well.

        Raises:
            InputError: a checkpoint of another config or of other data.
            OSError: the folder cannot be read, which says nothing of the checkpoint.
        """
        note = ""
        for path in (self.last, self.best):
            if not _readable(path):
                continue
            try:
                trainer.load(path.parent, path.name)
            except DamagedError as error:
                note = note or str(error)
                continue
            self._best = trainer.report
            if path == self.last and _readable(self.best):
                self._compare(trainer.report)
            samples = trainer.report.get("samples", 0)
            return note and f"{note}; the trial went back to {samples} samples"
        return note and f"{note}; the trial began anew"

    def _compare(self, last: dict[str, Any]) -> None:
        """Find which is the best of the two that are there."""
        try:
            self._best = read_trial(self.best)[1]["report"]
        except (DamagedError, KeyError):
            self.best.unlink()
            return
        if not self._worse(last):
            self._best = last
            self.best.unlink()

    def _worse(self, report: dict[str, Any]) -> bool:
        pairs = list(zip(self._costs(report), self._costs(self._best), strict=True))
        return all(now >= then for now, then in pairs) and any(now > then for now, then in pairs)

    def _costs(self, report: dict[str, Any]) -> list[float]:
        values = [sign * float(report.get(name, math.nan)) for name, sign in self._signs.items()]
        diverged = report.get("diverged") or any(map(math.isnan, values))
        return [math.inf] * len(values) if diverged else values


def _readable(path: Path) -> bool:
    """Whether the file is there; raises OSError where the disk does not say."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return False
    return True


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; `source` is only ever replaced, never written into."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(source, part)
    part.replace(target)
