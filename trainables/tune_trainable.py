"""One trial as a Ray Tune class trainable: a report is a Tune iteration.

The trial's checkpoint is one file in its own folder, replaced at every report, and a trainable that
finds one there goes on from it: so a restarted actor, a restarted search and a plain process all
resume in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainables.search_trial import SearchTrial, TuneConfig


class VQTrial(tune.Trainable):  # type: ignore[misc]
    """Runs one TrialConfig; reused for the next one, with the data still open."""

    _trial: SearchTrial | None = None

    def setup(self, config: TuneConfig) -> None:
        """Build the trial, and go on from its checkpoint if there is one.

        What goes wrong is raised by the first step: of an actor that cannot be made Ray keeps no
        exception, and whether another try is worth it depends on that.
        """
        self._broken: Exception | None = None
        try:
            self._close()  # the last trial's tensors go before this one's come
            torch.set_num_threads(config["threads"])
            self._trial = SearchTrial(config)
        except Exception as error:
            self._broken = error

    def step(self) -> dict[str, Any]:
        """Train to the next report; the checkpoint is on disk before the report is sent."""
        if self._broken is not None:
            raise self._broken
        return self._ours().step()

    def reset_config(self, new_config: TuneConfig) -> bool:
        """Take over another trial in the same process."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """For schedulers that pause or copy trials."""
        self._ours().trainer.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from a checkpoint that Tune keeps."""
        self._ours().trainer.load(Path(checkpoint))

    def cleanup(self) -> None:
        """Send what is left."""
        self._close()

    def _ours(self) -> SearchTrial:
        assert self._trial is not None  # set up before anything else
        return self._trial

    def _close(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.close()
