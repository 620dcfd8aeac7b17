"""One trial of a search: its trainer, its checkpoints, and what it reports, whoever trains it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from trainables.config import TrialConfig
from trainables.data import load_dataset
from trainables.errors import named
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


class SearchTrial:
    """A trial with its folder: goes on from the checkpoint that it finds there.

    Attributes:
        trainer: what trains.
        unsent: the last report has to go out again, since after a resume it may never have arrived.
        snapshots: whether its reports show what it makes of examples.
    """

    def __init__(self, config: TuneConfig) -> None:
        """Build the trial; loads its data, cached by node on disk and by process in memory.

        Raises:
            InputError: a config or data that will not do.
            StorageError: the run's disk is full, or it was away for too long.
        """
        self._sender: Sender | None = None
        self._note, self.snapshots = "", config.get("snapshots", False)
        try:
            self._build(config)
        except BaseException:
            self.close()
            raise

    def step(self) -> dict[str, Any]:
        """Train to the next report; the checkpoint is on disk before the report is given."""
        if not self.unsent:
            self.trainer.advance()
            self.keep()
        return self.tell()

    def keep(self) -> None:
        """Write the checkpoint of the report just made, and let it go to where the run is kept."""
        patiently(lambda: self.kept.save(self.trainer), self.kept.last)
        if self._sender is None:
            return
        self._sender.send()
        if self.trainer.done and not self._sender.flushed():  # the last one is waited for
            self.note("the last checkpoint could not be sent to the storage")

    def tell(self) -> dict[str, Any]:
        """The last report as Tune takes it."""
        self.unsent = False
        report = {**self.trainer.report, "done": self.trainer.done}
        if self.snapshots:
            report |= self._snapshot()
        if self._note:
            report[NOTE], self._note = self._note, ""
        return report

    def note(self, line: str) -> None:
        """Tell the user with the next report, unless there is something else to be told."""
        self._note = self._note or line

    def close(self) -> None:
        """Send what is left."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _build(self, config: TuneConfig) -> None:
        trial = TrialConfig.from_dict(config["trial"], where=f"trial {config['trial_id']}")
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
        self.unsent = bool(self.trainer.report)

    def _snapshot(self) -> dict[str, Any]:
        """Pictures for those who track the trial; with sound at its end."""
        try:
            return {SNAPSHOT: snapshot(self.trainer, sound=self.trainer.complete)}
        except Exception as error:  # a trial does not fail for want of a picture
            self.snapshots = False
            self.note(f"shows no pictures: {named(error)}")
            return {}
