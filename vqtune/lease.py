"""A run at a URI belongs to one session at a time: a small file beside it says whose it is.

No lock is known to all stores, and few can refuse to write what is there. So a session writes its
name, looks again whether it is still its own, and renews it for as long as it is at work; one that
has not been renewed for a while was left by a session that was killed.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from trainables.errors import InputError
from trainables.remote import Remote, reason_of
from vqtune.run_folder import LEASE, RunFolder, write_text

PERIOD = 10.0  # seconds between two renewals
# How many periods it is good for; and how many one that seems older is watched for a renewal before
# it is taken over, since clocks may differ.
_GOOD, _WATCHED = 3, 2
SETTLED = 1.0  # seconds until a second look, for whoever writes at the same time
_LONGEST = 4096  # bytes


@dataclass(frozen=True)
class Holder:
    """Whose a run is: a session's random name, its machine, and since when, in Unix seconds.

    A time that cannot be read is 0.
    """

    owner: str
    host: str
    since: float
    renewed: float

    def __str__(self) -> str:
        """As in `on mars since 2026-01-31 12:00:00 UTC`."""
        try:
            began = f" since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
        except (OverflowError, OSError, ValueError):
            began = ""
        return f"on {self.host}{began if self.since else ''}"


class Lease:
    """A session's hold on the URI of a run, of whose working copy it has the lock."""

    def __init__(self, run: RunFolder, lost: Callable[[], None]) -> None:
        """Nothing is written yet; `lost` is called, in a thread, where another has taken over."""
        assert run.remote is not None
        self._run, self._remote, self._lost = run, Remote(run.remote), lost
        self._owner, self._since = secrets.token_hex(16), time.time()
        self._own = run.path / LEASE  # the name of the last session with this working copy
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="vqtune-lease")

    def take(self, other: str) -> None:
        """Take the run, also from a session that is there no more.

        Raises:
            InputError: `other` is at work in it, or the place cannot be read or written to.
        """
        try:
            found = read_holder(self._remote)
            # Who had this working copy before has ended, or its lock could not be ours.
            if found is not None and found.owner != self._last_owner():
                _check_gone(self._remote, found, other)
            write_text(self._own, self._owner)
            self._write()
            time.sleep(SETTLED)
            found = read_holder(self._remote)
        except OSError as error:
            reason = f"cannot be read or written to: {reason_of(error)}"
            raise InputError(reason, self._remote.uri) from None
        if found is None:
            raise InputError("what is written there is gone a moment later", self._remote.uri)
        if found.owner != self._owner:
            raise _held(self._remote, found, other)
        self._thread.start()

    def release(self) -> None:
        """Leave the run to others."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            found = read_holder(self._remote)
            if found is not None and found.owner == self._owner:
                self._remote.remove(LEASE)
        except OSError:
            return  # it ends by itself; with this working copy one goes on at once
        self._own.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(PERIOD):
            with suppress(OSError):  # the place is away: later, if nobody else has it by then
                self._run.lost = self._successor()
                if self._run.lost is not None:
                    self._lost()
                    return
                self._write()

    def _successor(self) -> str | None:
        """Who has taken over from this session, if somebody has."""
        found = read_holder(self._remote)
        if found is not None:
            return str(found) if found.owner != self._owner else None
        # Whoever takes it away had it; but a folder that is away as a whole may come back.
        return "which has ended since" if "spec.yaml" in self._remote.sizes() else None

    def _write(self) -> None:
        holder = Holder(self._owner, socket.gethostname(), self._since, time.time())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / LEASE
            file.write_text(json.dumps(asdict(holder)), encoding="utf-8")
            self._remote.upload(file, LEASE, self._owner)

    def _last_owner(self) -> str | None:
        try:
            return self._own.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None


@contextmanager
def leased(run: RunFolder, other: str = "another session") -> Iterator[None]:
    """Keep others out of a run at a URI; of one in a folder its lock does.

    A session that another has taken over from, after it could not renew its lease, is ended as by
    Ctrl-C.

    Raises:
        InputError: `other` is at work in it, or the place cannot be read or written to.
    """
    if run.remote is None:
        yield
        return
    lease = Lease(run, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        lease.take(other)
        yield
    finally:
        lease.release()


def check_free(uri: str, other: str) -> None:
    """Raise InputError where `other` is at work in the run at a URI."""
    try:
        found = read_holder(Remote(uri))
    except OSError as error:
        raise InputError(f"cannot be read: {reason_of(error)}", uri) from None
    if found is not None and _left(found) > 0:
        raise _held(Remote(uri), found, other)


def read_holder(remote: Remote) -> Holder | None:
    """Whose the run is that is kept there; None where it is nobody's."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LEASE
        if not remote.download(LEASE, file):
            return None
        try:
            found = json.loads(file.read_bytes()[:_LONGEST])
            owner, host = str(found["owner"]), str(found["host"])[:100]
            since, renewed = float(found["since"]), float(found["renewed"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return Holder("", "an unknown machine", 0.0, 0.0)
        host = "".join(c if c.isprintable() else "?" for c in host)
        # No time at all is not equal to itself, and would look renewed.
        since, renewed = (t if math.isfinite(t) else 0.0 for t in (since, renewed))
        return Holder(owner, host, since, renewed)


def _left(found: Holder) -> float:
    """Seconds that it is good for yet; a clock that differs by more than that tells nothing."""
    age = time.time() - found.renewed
    good = _GOOD * PERIOD
    return good - age if abs(age) < good else 0.0


def _check_gone(remote: Remote, found: Holder, other: str) -> None:
    if _left(found) > 0:
        raise _held(remote, found, other)
    until = time.monotonic() + _WATCHED * PERIOD
    while time.monotonic() < until:
        time.sleep(PERIOD / 10)
        now = read_holder(remote)
        if now is None:
            return
        if now != found:
            raise _held(remote, now, other)


def _held(remote: Remote, found: Holder, other: str) -> InputError:
    seconds = math.ceil(_left(found)) or math.ceil(_GOOD * PERIOD)
    return InputError(
        f"{other} is at work in this run, {found}; allowed: once it has ended, or, if it was "
        f"killed, in {seconds} s",
        remote.uri,
    )
