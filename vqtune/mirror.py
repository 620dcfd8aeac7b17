"""A run at a URI: a working copy on the driver's machine, and a thread that keeps the URI up to it.

The search neither waits for it nor fails with it. Checkpoints go from the nodes to the URI by
themselves (`trainables.sender`) and come here when the session ends, for report and export.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.confirmed import FOLDER as CONFIRM
from trainables.errors import InputError
from trainables.remote import Remote, below, reason_of
from vqtune.lease import leased
from vqtune.run_folder import RunFolder, check_name

_PERIOD = 10.0  # seconds between two looks for what has changed
_LAST = 120.0  # seconds that the last upload may take in all
_PAUSE = 2.0
# These only ever grow, so of two copies the longer is the later.
_GROWING = ("optuna.journal", "result.json", "wandb.jsonl")


class Mirror:
    """Brings a run's files to its URI, all but checkpoints."""

    def __init__(self, run: RunFolder, warn: Callable[[str], None]) -> None:
        """Nothing is sent yet."""
        assert run.remote is not None
        self.run, self.remote, self._warn = run, Remote(run.remote), warn
        self._sent: dict[str, tuple[int, int]] = {}
        self._gone: set[str] = set()
        self._ended, self._warned = threading.Event(), False
        self._thread = threading.Thread(target=self._work, daemon=True, name="vqtune-mirror")

    def start(self) -> None:
        """Begin to send what changes."""
        self._thread.start()

    def close(self) -> None:
        """Send the rest, and tell the user where that cannot be done."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        # What was on its way when it was dropped may have come after that.
        self._gone.clear()
        if self.run.lost is not None:
            self._warn(
                f"{self.remote.uri} could not be reached for a while, and another session has "
                f"taken the run over, {self.run.lost}; what this one has computed is in "
                f"{self.run.path}"
            )
            return
        until = time.monotonic() + _LAST
        while (reason := self._send()) is not None:
            if time.monotonic() > until:
                self._warn(
                    f"the run is whole in {self.run.path}, but not at {self.remote.uri} "
                    f"({reason}); the same command (a search's with --resume) sends the rest"
                )
                return
            time.sleep(_PAUSE)

    def _work(self) -> None:
        while not self._ended.wait(_PERIOD):
            reason = self._send()
            if reason is not None and not self._warned:
                self._warned = True
                self._warn(f"cannot write to {self.remote.uri} ({reason}); trying again")

    def _send(self) -> str | None:
        """Send what has changed since, while the run is ours; why not, where that fails."""
        if self.run.lost is not None:
            return None
        here = files_of(self.run)
        try:
            for name in here:
                path = self.run.path / name
                try:
                    found = path.stat()
                    state = (found.st_size, found.st_mtime_ns)
                    if self._sent.get(name) != state:
                        self.remote.upload(path, name)
                        self._sent[name] = state
                except FileNotFoundError:
                    if path.exists():
                        raise
            for name in self._sent.keys() - set(here):
                self.remote.remove(name)
                del self._sent[name]
            for name in self.run.dropped - self._gone:
                self.remote.remove(name)
                self._gone.add(name)
        except OSError as error:
            return reason_of(error)
        return None


@contextmanager
def mirrored(run: RunFolder, warn: Callable[[str], None]) -> Iterator[None]:
    """Keep the URI of a run up to its working copy; then fetch the checkpoints from there."""
    if run.remote is None:
        yield
        return
    mirror = Mirror(run, warn)
    mirror.start()
    try:
        yield
    finally:
        mirror.close()
        try:
            if run.lost is None:
                _fetch(mirror.remote, run.path, lambda name: name.endswith(".safetensors"))
        except OSError as error:
            warn(f"cannot fetch the checkpoints from {run.remote} ({reason_of(error)})")


def send_all(run: RunFolder, warn: Callable[[str], None]) -> None:
    """Bring to the URI what was written after the session, such as the report."""
    if run.remote is None or run.lost is not None:
        return
    try:
        with run.locked("another session"), leased(run):
            Mirror(run, warn).close()
    except InputError as error:
        warn(f"what was written last is in {run.path} alone: {error}")


def holds_run(uri: str) -> bool:
    """Whether there is a run; raises InputError where the place cannot be read."""
    with _as_input(uri):
        return "spec.yaml" in Remote(uri).sizes()


def check_writable(uri: str) -> None:
    """Write a small file and take it away again; raises InputError where that cannot be done."""
    remote = Remote(uri)
    try:
        with tempfile.NamedTemporaryFile() as empty:
            remote.upload(Path(empty.name), "nodes/driver")
        remote.remove("nodes/driver")
    except OSError as error:
        raise InputError(f"cannot be written to: {reason_of(error)}", uri) from None


def fetch_records(uri: str, folder: Path) -> None:
    """Bring a run's working copy up to what is at the URI; checkpoints stay there.

    A working copy that is as far or further is left as it is: a session may have ended before it
    could send all. Raises InputError where the place cannot be read.
    """
    with _as_input(uri):
        remote = Remote(uri)
        growing = [n for n in remote.sizes().items() if _belongs(n[0]) and n[0].endswith(_GROWING)]
        if not all(_size(folder / name) >= size for name, size in growing):
            _fetch(remote, folder, _belongs)


def working_copy(uri: str) -> Path:
    """Fetch all of a run into its folder under `runs`; raises InputError where there is none."""
    name = uri.partition("?")[0].rstrip("/").rpartition("/")[2]
    check_name(name)
    folder = Path("runs") / name
    fetch_run(uri, folder)
    return folder


def fetch_run(uri: str, folder: Path) -> None:
    """Fetch all of a run; raises InputError where there is none."""
    with _as_input(uri):
        remote = Remote(uri)
        there = remote.sizes()
        if "spec.yaml" not in there and not (folder / "spec.yaml").exists():
            raise InputError("there is no run; allowed: a URI of one, as STORAGE/NAME", uri)
        _fetch(remote, folder, lambda name: _belongs(name) or name.endswith(".safetensors"))
    # Of this, too, either copy may be the further one.
    fetch_records(below(uri, CONFIRM), folder / CONFIRM)


@contextmanager
def _as_input(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be read: {reason_of(error)}", uri) from None


def _fetch(remote: Remote, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Fetch files that are not here, or of another size; of a growing one never a shorter."""
    for name, size in remote.sizes().items():
        target, here = folder / name, _size(folder / name)
        if not wanted(name) or here == size or (target.name in _GROWING and here > size):
            continue
        if not target.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"found a file {name!r}; allowed: files inside the run", remote.uri)
        remote.download(name, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def files_of(run: RunFolder) -> list[str]:
    """What is to be sent, as names inside the run, in this order.

    The journal comes last: it may name trials that have no records yet, not the reverse.
    """
    names = [
        path.relative_to(run.path).as_posix()
        for path in run.path.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    return sorted(filter(_belongs, names), key=lambda name: (name == run.journal.name, name))


def _belongs(name: str) -> bool:
    """Whether a file is the run's: neither a lock, nor half-written, nor sent by the nodes.

    Nor of the confirmation, which is a run of its own inside it, with a session of its own.
    """
    parts = name.split("/")
    return not (
        parts[0] == CONFIRM
        or parts[-1].endswith((".part", ".lock", ".safetensors"))
        or any(part.startswith(".") for part in parts)
    )
