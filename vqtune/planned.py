"""Trials that are all known beforehand, trained as a run: those of an ablation, of a confirmation.

What has ended in an earlier session is not trained again; what was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from analysis.records import read_run
from trainables.config import TrialConfig
from vqtune.cluster import Resources
from vqtune.run_folder import RunFolder


class PlannedTrial(NamedTuple):
    """One config with one seed."""

    trial_id: str
    role: str
    config: TrialConfig


def left(trials: Sequence[PlannedTrial], run: RunFolder) -> list[PlannedTrial]:
    """Those that have not ended yet."""
    from vqtune.resume import ended_trials  # noqa: PLC0415

    ended = ended_trials(read_run(run.path))
    return [trial for trial in trials if trial.trial_id not in ended]


def train_left(
    trials: Sequence[PlannedTrial], run: RunFolder, name: str, taken: Resources, console: Console
) -> None:
    """Train those that have not ended; returns when all have, or when Ctrl-C was pressed.

    `name` is what the run is called in the live table, which shows all of `trials`.
    """
    from trainables.search_trial import TuneConfig  # noqa: PLC0415
    from vqtune.fixed_list import FixedList  # noqa: PLC0415
    from vqtune.progress import LiveTable  # noqa: PLC0415
    from vqtune.resume import ended_trials  # noqa: PLC0415
    from vqtune.tuning import run_trials  # noqa: PLC0415

    ended = ended_trials(read_run(run.path))
    proposed = [
        TuneConfig(
            trial_id=trial.trial_id,
            role=trial.role,
            trial=trial.config.to_dict(),
            folder=str(run.trial(trial.trial_id)),
            threads=taken.threads,
            gpus=taken.gpus,
        )
        for trial in trials
        if trial.trial_id not in ended
    ]
    baseline = next((trial.trial_id for trial in trials if trial.role == "baseline"), "")
    samples = trials[0].config.training.samples
    table = LiveTable(console, name, len(trials), samples, baseline)
    run_trials(run, taken, table, FixedList(proposed), list(ended.values()))
