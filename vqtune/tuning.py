"""Trials of a run on Ray Tune, whoever proposes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from trainables.tune_trainable import VQTrial
from vqtune.cluster import Resources
from vqtune.progress import LiveTable
from vqtune.recorder import Recorder
from vqtune.resume import PastTrial
from vqtune.run_folder import RunFolder

# A trial whose process dies goes on from its checkpoint this many times.
_RETRIES = 2


def run_trials(
    run: RunFolder,
    taken: Resources,
    table: LiveTable,
    searcher: Searcher,
    past: Sequence[PastTrial],
    scheduler: TrialScheduler | None = None,
    callbacks: Iterable[Callback] = (),
) -> None:
    """Train what the searcher proposes; returns when all have ended or Ctrl-C was pressed.

    Args:
        run: what the trials are recorded in.
        taken: what a trial takes.
        table: what is shown; its `trials` are those of all sessions.
        searcher: who proposes.
        past: the trials that have ended in earlier sessions.
        scheduler: who stops trials early; None lets every one go on to its end.
        callbacks: who else hears of the trials.
    """
    for trial in past:
        table.carry_over(trial.trial_id, trial.state, trial.last, trial.config)
    tuner = tune.Tuner(
        tune.with_resources(VQTrial, {"cpu": taken.cpus, "gpu": taken.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=table.trials - len(past),
            max_concurrent_trials=taken.slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.config["trial_id"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(run.tune),
            verbose=0,
            callbacks=[Recorder(run), table, *callbacks],
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
        ),
    )
    try:
        with table:
            tuner.fit()
    finally:
        shutil.rmtree(run.tune, ignore_errors=True)
