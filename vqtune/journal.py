"""The run's Optuna journal: told from other files before anything is written to it.

optuna-dashboard opens the same file, also while the search is at work.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trainables.errors import InputError
from trainables.patience import patiently

STUDY = "vqtune"
# Attributes of trials that were no proposals: taken over from another run; a combination of
# parameters that is no config.
WARM, UNFIT = "warm_start", "unfit"

_BEGINNING = b'{"op_code":'
# No entry has a line of so many bytes.
_LONGEST = 2**24


class _Journal(JournalFileBackend):
    """Reads without a write; what is left of a half-written last line goes before the first one.

    A full disk or a power cut leaves such a line; what was appended to it would be lost, and the
    journal unreadable for ever. Where the storage is away, both wait for it.
    """

    _torn = True  # whether there may be more in the file than was written with success
    _end: int | None = None  # how long the file was before the last write

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, all or none."""
        patiently(lambda: self._append(logs), self._file_path)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Give the entries from this one on."""
        read = super().read_logs
        yield from patiently(lambda: list(read(log_number_from)), self._file_path)

    def _append(self, logs: list[dict[str, Any]]) -> None:
        if self._torn:
            self._cut_back()
        else:
            self._end = Path(self._file_path).stat().st_size
        self._torn = True
        try:
            super().append_logs(logs)
        except OSError:
            with suppress(OSError):  # before the next write, then
                self._cut_back()
            raise
        self._torn = False

    def _cut_back(self) -> None:
        with Path(self._file_path).open("rb+") as file:
            if self._end is None:
                self._end = file.read().rfind(b"\n") + 1
            file.truncate(self._end)


def open_journal(path: Path) -> optuna.storages.JournalStorage:
    """The Optuna storage in this file, which is made where there is none.

    Raises:
        InputError: a file that is no journal; it is left as it is.
    """
    try:
        if path.exists():
            _check(path)
        # A lock of its own file name; links would not do on every shared file system.
        journal = _Journal(str(path), lock_obj=JournalFileOpenLock(str(path)))
        return optuna.storages.JournalStorage(journal)
    except OSError as error:
        raise InputError(f"cannot be opened: {error.strerror or error}", str(path)) from None
    except InputError:
        raise
    except Exception as error:  # Optuna checks no entry, and so raises nearly anything
        problem = f"an entry that Optuna cannot read ({type(error).__name__}: {error})"
        raise _no_journal(path, problem) from None


def _check(path: Path) -> None:
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(_LONGEST), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) == _LONGEST:
                raise _no_journal(path, f"{_short(line)} in line {number}")
            if line.endswith(b"\n"):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    entry = None
                if not isinstance(entry, dict) or not {"op_code", "worker_id"} <= entry.keys():
                    raise _no_journal(path, f"{_short(line)} in line {number}")
            elif number == 1 and not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                raise _no_journal(path, _short(line))


def _no_journal(path: Path, found: str) -> InputError:
    return InputError(f"found {found}; allowed: an Optuna journal as a search writes it", str(path))


def _short(line: bytes) -> str:
    text = line[:60].decode(errors="replace").rstrip("\n")
    return f"{text!r}{'…' * (len(line) > 60)}"


# --- the study in it ------------------------------------------------------------------------------


def directions(objectives: Mapping[str, str]) -> list[StudyDirection]:
    """Optuna's words for max and min."""
    ways = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [ways[way] for way in objectives.values()]


def make_study(storage: optuna.storages.BaseStorage, objectives: Mapping[str, str]) -> optuna.Study:
    """The search's study, which is made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=storage,
        sampler=optuna.samplers.RandomSampler(),
        study_name=STUDY,
        directions=directions(objectives),
        load_if_exists=True,
    )


def find_study(
    storage: optuna.storages.BaseStorage, objectives: Mapping[str, str], path: Path
) -> optuna.Study | None:
    """The search's study, or None in an empty journal.

    Raises:
        InputError: other studies are there, or one for other objectives.
    """
    names = optuna.get_all_study_names(storage)
    if STUDY not in names:
        if names:
            raise InputError(f"found the study {names[0]!r}; allowed: {STUDY!r}", str(path))
        return None
    sampler = optuna.samplers.RandomSampler()  # nothing is asked of it
    study = optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler)
    if study.directions != directions(objectives):
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise InputError(
            f"found a study that is to {found}; allowed: one for the objectives "
            f"{in_words(objectives)}",
            str(path),
        )
    return study


def in_words(objectives: Mapping[str, str]) -> str:
    """As `perplexity max, recon_loss min`."""
    return ", ".join(f"{name} {way}" for name, way in objectives.items())


def is_own(trial: FrozenTrial) -> bool:
    """Whether the trial is one of the search's, waiting ones among them."""
    return not {WARM, UNFIT} & trial.user_attrs.keys()


def proposed(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that the search has proposed, the unfinished among them."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if is_own(trial) and trial.state != TrialState.WAITING
    ]
