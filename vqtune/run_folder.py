"""A run: the folder that a search writes, and the files in it that are not a trial's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from analysis.run_entries import NAME, check_entries
from analysis.whole_file import whole
from trainables.errors import InputError
from trainables.yaml_file import read_mapping, yaml_text

LOCK = ".lock"
LEASE = ".lease"  # of a run at a URI
# Below this a search would stop in its first minutes.
LEAST_FREE_BYTES = 100 * 2**20


class RunFolder:
    """Paths inside one run."""

    def __init__(self, path: Path, remote: str | None = None) -> None:
        """Name the paths; nothing is made yet.

        Where the run is kept at a URI, that is `remote`, and `path` is its working copy.
        """
        self.path, self.remote = path, remote
        # Checkpoints that are to go from there, as names inside the run.
        self.dropped: set[str] = set()
        # Who has taken the run over at its URI, while this session could not reach it.
        self.lost: str | None = None
        self.spec = path / "spec.yaml"
        self.journal = path / "optuna.journal"
        self.report = path / "report.html"
        self.trials = path / "trials"

    @contextmanager
    def locked(self, other: str = "another search") -> Iterator[None]:
        """Keep others out of this run; raises InputError where `other` is at work in it."""
        # `vqtune front --watch` tries the lock, for an instant.
        lock = FileLock(self.path / LOCK, timeout=0.5)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(f"{other} is at work in this run", str(self.path)) from None
        try:
            yield
        finally:
            lock.release()

    def is_reported(self) -> bool:
        """Whether there is a report that is younger than all that it tells of."""
        try:
            written = self.report.stat().st_mtime_ns
            told = [self.spec, *self.trials.glob("*/result.json")]
            return all(path.stat().st_mtime_ns < written for path in told)
        except OSError:
            return False

    def trial(self, trial_id: str) -> Path:
        """The folder of a trial."""
        return self.trials / trial_id


def new_run(storage: Path, name: str, remote: str | None = None) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        InputError: a name that is taken or cannot be a folder's, or no space on the disk.
    """
    path = _path(storage, name)
    run = RunFolder(path, remote)
    if path.exists() and not unstarted(run):
        raise InputError(
            f"the run {name!r} exists in {storage}; allowed: another name, or --resume to go on "
            "with it",
            "--name",
        )
    try:
        storage.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(storage).free
        if free < LEAST_FREE_BYTES:
            raise InputError(
                f"{free / 2**20:.0f} MiB free at {storage}; a run needs at least "
                f"{LEAST_FREE_BYTES / 2**20:.0f} MiB",
                "--storage",
            )
        run.trials.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror}", "--storage") from None
    return run


def existing_run(storage: Path, name: str, remote: str | None = None) -> RunFolder:
    """The folder of a run to resume.

    Raises:
        InputError: there is none.
        RunError: one with entries that lead out of it.
    """
    run = RunFolder(_path(storage, name), remote)
    if not run.spec.exists():
        raise InputError(f"there is no run {name!r} in {storage} to resume", "--resume")
    check_entries(run.path)
    return run


def unstarted(run: RunFolder) -> bool:
    """Whether this is what a search leaves that was killed before it could start."""
    try:
        names = {path.name for path in run.path.iterdir()}
        return names <= {"trials", LOCK, LEASE} and not any(run.trials.iterdir())
    except OSError:
        return False


def check_name(name: str) -> None:
    """Refuse what cannot be a run's name."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"found {name!r}; allowed: up to 100 letters, digits, '.', '_' and '-', the first a "
            "letter or digit",
            "--name",
        )


def _path(storage: Path, name: str) -> Path:
    check_name(name)
    return storage / name


def out_folder(path: Path) -> None:
    """Make a folder to write to; raises InputError where there can be none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror}", "--out") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as part, part.open("x", encoding="utf-8") as file:
        file.write(text)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write plain values as YAML, in their order."""
    write_text(path, yaml_text(values))


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_spec(run: RunFolder) -> dict[str, Any]:
    """The run's spec; raises InputError where it is damaged."""
    return read_mapping(run.spec)
