"""One trial as a Ray Tune class trainable: a report is a Tune iteration.

The only file in trainables that imports Ray. The trial's checkpoint is one file in its own folder,
replaced at every report, and a trainable that finds one there goes on from it: so a restarted
actor, a restarted search and a plain process all resume in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from ray import tune

from trainables.config import TrialConfig
from trainables.data import load_dataset
from trainables.kept import Kept
from trainables.patience import patiently
from trainables.sender import Sender
from trainables.snapshot import snapshot
from trainables.trainer import Trainer

# Keys of a report that are no metrics: for what the user should know once, and for a Snapshot.
NOTE, SNAPSHOT = "note", "snapshot"

_OBJECTIVES: Mapping[str, str] = {"perplexity": "max", "recon_loss": "min"}


class TuneConfig(TypedDict):
    """What a trial gets from the search."""

    trial_id: str
    role: str
    trial: dict[str, Any]
    folder: str
    threads: int
    gpus: float
    objectives: NotRequired[Mapping[str, str]]
    snapshots: NotRequired[bool]
    remote: NotRequired[str | None]  # the trial's URI, where no folder is shared


class VQTrial(tune.Trainable):  # type: ignore[misc]
    """Runs one TrialConfig; reused for the next one, with the data still open."""

    _sender: Sender | None = None

    def setup(self, config: TuneConfig) -> None:
        """Build the trial, and go on from its checkpoint if there is one.

        What goes wrong is raised by the first step: of an actor that cannot be made Ray keeps no
        exception, and whether another try is worth it depends on that.
        """
        self._broken: Exception | None = None
        self._note, self._unsent = "", False
        try:
            self._build(config)
        except Exception as error:
            self._broken = error

    def step(self) -> dict[str, Any]:
        """Train to the next report; the checkpoint is on disk before the report is sent."""
        if self._broken is not None:
            raise self._broken
        # After a resume the last report goes out again, since it may never have arrived.
        if not self._unsent:
            self.trainer.advance()
            patiently(lambda: self.kept.save(self.trainer), self.kept.last)
            self._send()
        self._unsent = False
        report = {**self.trainer.report, "done": self.trainer.done}
        if self._snapshots:
            report |= self._snapshot()
        if self._note:
            report[NOTE], self._note = self._note, ""
        return report

    def reset_config(self, new_config: TuneConfig) -> bool:
        """Take over another trial in the same process."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """For schedulers that pause or copy trials."""
        self.trainer.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from a checkpoint that Tune keeps."""
        self.trainer.load(Path(checkpoint))

    def cleanup(self) -> None:
        """Send what is left."""
        self._close()

    def _build(self, config: TuneConfig) -> None:
        self._close()
        # The last trial's tensors go before this one's come.
        self.__dict__.pop("trainer", None)
        torch.set_num_threads(config["threads"])
        trial = TrialConfig.from_dict(config["trial"], where=f"trial {config['trial_id']}")
        # The data set is cached by node on disk and by process in memory.
        # Without a share of a GPU the trial keeps off all of them, whatever it can see.
        device = None if config["gpus"] else torch.device("cpu")
        self.trainer = Trainer(trial, load_dataset(trial.data), device, config["gpus"])
        folder = Path(config["folder"])
        if remote := config.get("remote"):
            self._sender = patiently(lambda: Sender(remote), remote)
            folder = self._sender.folder
        else:
            # Not its parents: a run's folder that is away is waited for, and not to be made anew.
            patiently(lambda: folder.mkdir(exist_ok=True), folder)
        self.kept = Kept(folder, config.get("objectives", _OBJECTIVES))
        self._note = patiently(lambda: self.kept.load(self.trainer), folder)
        self._unsent = bool(self.trainer.report)
        self._snapshots = config.get("snapshots", False)

    def _send(self) -> None:
        """Let the checkpoint go to where the run is kept; the last one is waited for."""
        if self._sender is None:
            return
        self._sender.send()
        if self.trainer.done and not self._sender.flushed():
            self._note = self._note or "the last checkpoint could not be sent to the storage"

    def _close(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _snapshot(self) -> dict[str, Any]:
        """Pictures for those who track the trial; with sound at its end."""
        try:
            return {SNAPSHOT: snapshot(self.trainer, sound=self.trainer.complete)}
        except Exception as error:  # a trial does not fail for want of a picture
            told = " ".join(f"{type(error).__name__}: {error}".split())
            self._snapshots, self._note = False, self._note or f"shows no pictures: {told}"
            return {}
