"""Trials of a run on Ray Tune, whoever proposes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from trainables.patience import StorageError
from trainables.tune_trainable import VQTrial
from vqtune.cluster import Resources, slots_now
from vqtune.keeping import Keeping
from vqtune.lane_places import in_pools
from vqtune.lanes import Pools
from vqtune.notes import note
from vqtune.pareto_asha import ParetoASHA
from vqtune.progress import LiveTable
from vqtune.recorder import Recorder
from vqtune.resume import PastTrial
from vqtune.retries import of_its_own, retries
from vqtune.room import Room
from vqtune.run_folder import RunFolder
from vqtune.stop_reasons import StopReasons
from vqtune.tensorboard import TensorBoard

# Tune would send these to every trial, and Ray write them into a log that all can read.
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def run_trials(
    run: RunFolder,
    taken: Resources,
    table: LiveTable,
    searcher: Searcher,
    past: Sequence[PastTrial],
    scheduler: TrialScheduler | None = None,
    callbacks: Iterable[Callback] = (),
    keep_checkpoints: bool = False,
    pools: Pools | None = None,
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
        keep_checkpoints: keep also those that nobody will look at.
        pools: the lanes that trials train in; None where each has a process of its own.

    Raises:
        StorageError: the run's disk is full, or was away for too long; nothing is told of the
            trials that were at work, so that they go on in a next session.
    """

    def warn(message: str) -> None:
        note(table.console, message)

    ENV_VARS_TO_PROPAGATE.difference_update(_KEYS)
    for trial in past:
        table.carry_over(trial.trial_id, trial.state, trial.last, trial.config)
    # Callbacks hear in this order: the reason goes into the report, trackers take from it what is
    # not for the records.
    reasons = [StopReasons(scheduler)] if isinstance(scheduler, ParetoASHA) else []
    board = TensorBoard(run, table.objectives, warn)
    keeping = Keeping(run, table.objectives, past, keep_checkpoints)
    slots = partial(slots_now, taken) if pools is None else pools.slots
    actors = of_its_own if pools is None else in_pools(pools)
    # What Tune writes for itself is of no use to anybody, and not to be in the way on a full disk.
    with (
        tempfile.TemporaryDirectory(prefix="vqtune-", ignore_cleanup_errors=True) as scratch,
        table,
    ):
        tuner = tune.Tuner(
            tune.with_resources(VQTrial, lambda config: _bundle(taken, config["trial"])),
            tune_config=tune.TuneConfig(
                search_alg=Room(searcher, taken, slots, run.remote),
                scheduler=scheduler,
                num_samples=table.trials - len(past),
                reuse_actors=pools is None,  # a lane is at no cost
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                callbacks=[*reasons, *callbacks, board, Recorder(run, warn), table, keeping],
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=False
                ),
            ),
        )
        try:
            with retries(warn, actors):
                tuner.fit()
        except Exception as error:
            # Tune wraps what is raised inside it, more than once.
            found = _storage_error(error)
            if found is None:
                raise
            raise found from None
        finally:
            board.close()


def _bundle(taken: Resources, trial: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune is to set aside for a trial; it gives the process of one only to its like."""
    own = taken.of(trial)
    return tune.PlacementGroupFactory([{"CPU": own.cpus, "GPU": own.gpus}])


def _storage_error(error: BaseException | None) -> StorageError | None:
    """The storage's failure that an exception came of, if it was one."""
    while error is not None:
        if isinstance(error, StorageError):
            return error
        error = error.__cause__ or error.__context__
    return None
