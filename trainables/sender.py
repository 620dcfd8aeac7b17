"""Sends a trial's checkpoints to a URI while it trains, so that no folder has to be shared."""

from __future__ import annotations

import hashlib
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
        """Make the folder, which depends on the URI alone, and fetch what is there."""
        self._remote = Remote(uri)
        name = hashlib.sha256(uri.encode()).hexdigest()[:16]
        self.folder = Path(tempfile.gettempdir()) / f"vqtune-trial-{name}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        self._there = {name for name in _FILES if self._remote.download(name, self.folder / name)}
        self._changed, self._sent, self._ended = (threading.Event() for _ in range(3))
        self._sent.set()
        self._thread = threading.Thread(target=self._run, daemon=True, name="vqtune-sender")
        self._thread.start()

    def send(self) -> None:
        """There is a new checkpoint."""
        self._sent.clear()
        self._changed.set()

    def flushed(self) -> bool:
        """Wait until all is sent; False where that takes too long."""
        return self._sent.wait(_LAST)

    def close(self) -> bool:
        """Send the last, and remove the folder; False where it could not be sent."""
        sent = self.flushed()
        self._ended.set()
        self._changed.set()
        self._thread.join(timeout=_PAUSE)
        shutil.rmtree(self.folder, ignore_errors=True)
        return sent

    def _run(self) -> None:
        while True:
            self._changed.wait()
            if self._ended.is_set():
                return
            self._changed.clear()
            try:
                for name in _FILES:
                    self._bring(name)
            except OSError:
                self._changed.set()
                self._ended.wait(_PAUSE)
                continue
            if not self._changed.is_set():
                self._sent.set()

    def _bring(self, name: str) -> None:
        path = self.folder / name
        if path.exists():
            self._remote.upload(path, name)
            self._there.add(name)
        elif name in self._there:
            self._remote.remove(name)
            self._there.discard(name)
