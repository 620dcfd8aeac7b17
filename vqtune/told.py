"""What a tracker has been given of each trial, kept in the run so that nothing is given twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Told:
    """Lines of (where, trial, samples) or (where, trial, "end") in a file that is only added to.

    A line is written before what it tells of is given away: where a session is killed between the
    two, a row is missing, which does less harm than one that is there twice.
    """

    def __init__(self, path: Path, where: str) -> None:
        """Read what there is; `where` is the project that was told."""
        self.path, self.where = path, where
        self._known: set[tuple[str, Any]] = set()
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return  # nothing yet
        for line in lines:
            try:
                there, trial_id, what = json.loads(line)
            except (ValueError, TypeError):
                continue  # cut short
            if there == where and isinstance(trial_id, str) and isinstance(what, (int, str)):
                self._known.add((trial_id, what))

    def is_new(self, trial_id: str, samples: int) -> bool:
        """Whether this report has not been given away; from now on it has."""
        return self._add(trial_id, samples)

    def knows(self, trial_id: str) -> bool:
        """Whether anything of the trial has been given away."""
        return any(known == trial_id for known, _ in self._known)

    def has_end(self, trial_id: str) -> bool:
        """Whether the trial's end has been."""
        return (trial_id, "end") in self._known

    def end(self, trial_id: str) -> None:
        """The trial's end is given away."""
        self._add(trial_id, "end")

    def _add(self, trial_id: str, what: int | str) -> bool:
        if (trial_id, what) in self._known:
            return False
        self._known.add((trial_id, what))
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * _is_cut(self.path) + json.dumps([self.where, trial_id, what]) + "\n")
        return True


def _is_cut(path: Path) -> bool:
    """Whether the last line has no end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
