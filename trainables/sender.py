"""Sends a trial's checkpoints to a URI while it trains, so that no folder has to be shared."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

from trainables.kept import BEST
from trainables.remote import Remote
from trainables.trainer import CHECKPOINT

_FILES = (CHECKPOINT, BEST)
_PAUSE = 2.0  # seconds after a try that failed
_LAST = 120.0  # seconds that the last checkpoint of a trial may take


class Sender:
    """A folder of this node, and a thread that brings to the URI what is written into it.

    Training does not wait for it. Where the place is away it tries again, and sends what is the
    last by then.
    """

    def __init__(self, uri: str) -> None:
        """Make the folder, and fetch what is there."""
        self._remote = Remote(uri)
        # One of its own: Tune may set up a trial in two processes, and end the one it needs not.
        self.folder = Path(tempfile.mkdtemp(prefix="vqtune-trial-"))
        try:
            self._there = {
                name for name in _FILES if self._remote.download(name, self.folder / name)
            }
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        # How many checkpoints there were, and which of them was there when all was sent last.
        self._wanted = self._sent = 0
        self._ended, self._changed = False, threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="vqtune-sender")
        self._thread.start()

    def send(self) -> None:
        """There is a new checkpoint."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    def flushed(self) -> bool:
        """Wait until all is sent; False where that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._sent == self._wanted, _LAST)

    def close(self) -> bool:
        """Send the last, and remove the folder; False where it could not be sent."""
        sent = self.flushed()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(timeout=_PAUSE)
        shutil.rmtree(self.folder, ignore_errors=True)
        return sent

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._sent != self._wanted)
                if self._ended:
                    return
                wanted = self._wanted
            try:
                for name in _FILES:
                    self._bring(name)
            except OSError:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended, _PAUSE)
                continue
            with self._changed:
                self._sent = wanted
                self._changed.notify_all()

    def _bring(self, name: str) -> None:
        path = self.folder / name
        if path.exists():
            self._remote.upload(path, name)
            self._there.add(name)
        elif name in self._there:
            self._remote.remove(name)
            self._there.discard(name)
