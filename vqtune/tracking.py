"""Every trial as a Weights & Biases run, from the driver, without the search waiting for it.

One thread talks to W&B; the search only puts into its queue. Not Ray's own callback, which starts
two actors a trial: see benchmarks/overhead.py.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any

from trainables.search_trial import SNAPSHOT
from vqtune.listener import CLOSE, Listener, Warn
from vqtune.media import wandb_media
from vqtune.pareto_asha import STOPPED_FOR
from vqtune.run_folder import RunFolder
from vqtune.told import Told
from vqtune.wandb_link import choose_mode, quiet_settings, read_urls, remove_empty, write_urls

# Seconds for W&B to answer a new run, and to take what a run has left to send.
_INIT, _FINISH = 20.0, 20.0
# Runs that are finished at a time: each waits for its uploads.
_FINISHING = 8
# W&B's limit for a tag.
_TAG = 64
# In the run's folder; not in W&B's, whose links may lead out of it.
TOLD = "wandb.jsonl"
# What a shell's Ctrl-C leaves, which W&B shows as killed.
_INTERRUPTED = 255
# The module of an exception.
_MODULE = re.compile(r"^(\w+\.)+(?=\w+:)")
_COST = ("seconds", "cpu_seconds", "gpu_seconds")


class WandbTracker(Listener):
    """One W&B run a trial, grouped by search; a resumed trial goes on with its run.

    A row's step is its number of samples. Which rows W&B has been given is kept in the run's
    folder, so that none is given twice, whatever happened to this process in between; those of the
    half second before it is killed may be missing.
    """

    name = "W&B"

    def __init__(self, project: str, run: RunFolder, token: str, warn: Warn) -> None:
        """Track into `project`, in the group of the run's name; `warn` is for the user.

        `token` tells this search's W&B runs from those of another one of its name.
        """
        self.project, self.search = project, run.path.name
        self.run_id = f"{self.search}-{token}"
        self.mode: Any = None  # known when W&B has answered, or has not
        self._runs: dict[str, Any] = {}
        self._held: dict[str, list[Callable[[], None]]] = {}  # told when all else is
        self._last: dict[str, Mapping[str, Any]] = {}
        self._urls = read_urls(run.path)
        self._told = Told(run.path / TOLD, project)
        self._finishing = ThreadPoolExecutor(_FINISHING, "wandb-finish")
        self._finished: list[Future[None]] = []
        super().__init__(run, warn)

    def prepare(self) -> None:
        """Ask W&B whether it lets anybody in."""
        remove_empty(self.run.path)
        self.mode = choose_mode(self.warn)

    def take(self, result: dict[str, Any]) -> Any:
        """The snapshot, which is for W&B alone: nobody else is to store it."""
        return result.pop(SNAPSHOT, None)

    def is_told(self, trial_id: str) -> bool:
        """Whether W&B has the trial's end."""
        return self.mode == "disabled" or self._told.has_end(trial_id)

    def begun(self, trial_id: str, role: str, config: Mapping[str, Any]) -> None:
        """Open the trial's run, unless it is open: Tune starts a trial again after a crash."""
        import wandb  # noqa: PLC0415

        if trial_id in self._runs or trial_id in self._held or self.mode == "disabled":
            return
        folders = set(self._folders())
        try:
            run = self._init(trial_id, role, config)
        except wandb.errors.Error as error:
            if self.mode != "online":
                raise
            self._go_offline(str(error))
            # W&B's helper goes on trying, and takes no other run of this id until it is ended.
            self._held[trial_id] = [partial(self.begun, trial_id, role, config)]
            for folder in set(self._folders()) - folders:
                shutil.rmtree(folder, ignore_errors=True)
            return
        run.define_metric("samples")
        run.define_metric("*", step_metric="samples")
        run.summary["state"] = "running"
        self._runs[trial_id] = run
        if self.mode == "online":
            self._urls[trial_id] = run.url
            write_urls(self.run.path, self._urls)

    def reported(self, trial_id: str, report: Mapping[str, Any], at: float, snapshot: Any) -> None:
        """Log a report that W&B has not been given yet."""
        if trial_id in self._held:
            self._held[trial_id].append(partial(self.reported, trial_id, report, at, snapshot))
            return
        self._last[trial_id] = report
        samples = int(report["samples"])
        if trial_id in self._runs and self._told.is_new(trial_id, samples):
            media = wandb_media(snapshot) if snapshot is not None else {}
            self._runs[trial_id].log({**report, **media}, step=samples, commit=True)

    def ended(self, trial_id: str, state: str, reason: str) -> None:
        """Close the run with the trial's state, why it ended, and what it has cost."""
        if trial_id in self._held:
            self._held[trial_id].append(partial(self.ended, trial_id, state, reason))
            return
        run = self._runs.pop(trial_id, None)
        if run is None:
            return
        run.tags = (*run.tags, state, *([tag_of(reason)] if reason else []))
        last = self._last.pop(trial_id, {})
        cost = {key: last[key] for key in _COST if key in last}
        run.summary.update({"state": state, "reason": reason, **cost})
        self._told.end(trial_id)
        self._close(run, int(state == "failed"))

    def finish(self) -> None:
        """Close the runs of trials that were interrupted, and wait for what is being sent."""
        self._interrupt()
        wait(self._finished)
        if self._held:
            import wandb  # noqa: PLC0415

            wandb.teardown()
            held, self._held = self._held, {}
            for job in chain(*held.values()):
                self.attempt(job)
            self._interrupt()

    def close(self) -> None:
        """Wait until W&B has everything, but not for ever; what is left is kept offline."""
        until = time.monotonic() + CLOSE
        self._queue.put(None)
        self._thread.join(CLOSE / 2)
        if self._thread.is_alive() and self.mode == "online":
            self._go_offline(f"not everything was sent within {CLOSE / 2:.0f} s")
        self._thread.join(max(0.0, until - time.monotonic()))
        self._finishing.shutdown(wait=False, cancel_futures=True)

    def _init(self, trial_id: str, role: str, config: Mapping[str, Any]) -> Any:
        import wandb  # noqa: PLC0415

        return wandb.init(
            project=self.project,
            group=self.search,
            name=trial_id,
            id=f"{self.run_id}-{trial_id}",
            # A folder of a run that is not resumed can be synced again: it says the same.
            resume="allow" if self._told.knows(trial_id) else None,
            config=dict(config),
            tags=[role],
            dir=str(self.run.path),
            mode=self.mode,
            reinit="create_new",
            settings=quiet_settings(
                init_timeout=_INIT,
                finish_timeout=_FINISH,
                finish_timeout_raises=True,
                # The same for all trials, and most of a run's cost: the summary run has them.
                x_save_requirements=False,
                disable_git=True,
            ),
        )

    def _interrupt(self) -> None:
        while self._runs:
            _, run = self._runs.popitem()
            run.summary["state"] = "interrupted"
            self._close(run, _INTERRUPTED)

    def _folders(self) -> Iterator[Path]:
        return (self.run.path / "wandb").glob("run-*")

    def _close(self, run: Any, exit_code: int) -> None:
        def finish() -> None:
            try:
                run.finish(exit_code=exit_code)
            except TimeoutError:
                self._go_offline(f"not everything was taken within {_FINISH:.0f} s")

        if self.mode == "online":  # other trials are not to wait for its uploads
            self._finished.append(self._finishing.submit(finish))
        else:
            finish()

    def _go_offline(self, reason: str) -> None:
        """From now on: the next trials need not wait for W&B as well."""
        if self.mode == "online":
            self.mode = "offline"
            # Its advice on settings is for those who call it.
            told = reason.partition(" Consider ")[0].rstrip(".")
            self.tell_once(
                f"{told}; what it has not got is kept for wandb sync --include-online "
                f"{self.run.path / 'wandb'}/*run-*"
            )


def tag_of(reason: str) -> str:
    """Why a trial ended, in what W&B takes for a tag; trials stopped at one rung have the same."""
    told = _MODULE.sub("", reason.partition(STOPPED_FOR)[0])
    return shorten(told, _TAG, placeholder="…")
