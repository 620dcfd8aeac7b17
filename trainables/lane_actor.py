"""A process whose trials train together in lanes, asked for one report after the other.

The search runs one a GPU, as a Ray actor. One thread trains; what is asked of the process waits in
a queue between two of its turns, so nothing else touches a trial.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch

from trainables.lane_pool import LanePool
from trainables.search_trial import SearchTrial, TuneConfig
from trainables.seat import Seat

Answer = Future[Any]
Command = Callable[[Answer], None]

# Deaths of its process in a row after which a trial is under suspicion of having caused them. Such
# trials are trained one after the other, in the order in which they joined.
SUSPECT = 2


@dataclass(eq=False)
class _Guest:
    """A trial that is here.

    Attributes:
        trial: the trial; None where it could not be built.
        seat: its lane; None before its first step and after its last.
        failure: why it cannot go on.
        answer: who waits for its next report, since `asked`.
        suspect: whether it may be what ends processes; no more after a report.
    """

    trial_id: str
    suspect: bool
    trial: SearchTrial | None = None
    seat: Seat | None = None
    failure: Exception | None = None
    answer: Answer | None = None
    asked: float = 0.0
    seconds: float = 0.0
    reports: int = 0


class LaneActor:
    """Trains whoever joins, in up to `lanes` lanes a stack.

    What goes wrong with a trial is raised by its next `report`; what goes wrong with all of them,
    such as a device that is lost, ends the process, and they go on in the next.
    """

    def __init__(self, lanes: int, threads: int) -> None:
        """Start the thread that trains; `threads` is how many PyTorch may use."""
        self._pool = LanePool(lanes)
        self._guests: dict[str, _Guest] = {}
        self._alone = ""  # why trials could not share a stack, as told last
        self._commands: SimpleQueue[tuple[Command, Answer]] = SimpleQueue()
        Thread(target=self._work, args=(threads,), daemon=True, name="lanes").start()

    async def join(self, key: str, config: TuneConfig, deaths: int = 0) -> None:
        """Build a trial, which is known as `key` from now on.

        If it is here already under another key, nobody will ask for that any more: that one goes.
        `deaths` is how many processes in a row have ended with it.
        """
        await self._do(partial(self._join, key, config, deaths))

    async def report(self, key: str) -> dict[str, Any]:
        """The trial's next report, as Tune takes it; its checkpoint is on disk before.

        Raises:
            LookupError: there is no such trial.
            InputError: a config or data that will not do, or too little memory.
            StorageError: the run's disk is full, or it was away for too long.
        """
        report: dict[str, Any] = await self._do(partial(self._ask, key))
        return report

    async def leave(self, key: str) -> None:
        """Let a trial go, if it is here, and send what is left of it."""
        trial = await self._do(lambda answer: answer.set_result(self._dismiss(key)))
        if trial is not None:
            await asyncio.to_thread(trial.close)

    async def _do(self, command: Command) -> Any:
        """Have the thread do something, and wait for its answer."""
        answer: Answer = Future()
        answer.set_running_or_notify_cancel()
        self._commands.put((command, answer))
        return await asyncio.wrap_future(answer)

    # --- on the thread --------------------------------------------------------------------------

    def _work(self, threads: int) -> None:
        try:
            torch.set_num_threads(threads)
            while True:
                self._obey(wait=not self._pool.busy)
                if self._pool.busy:
                    self._turn()
        except BaseException:
            # Of no single trial: they all go on in the process that takes the place of this one.
            traceback.print_exc()
            os._exit(1)

    def _obey(self, wait: bool) -> None:
        """Do what has been asked in the meantime; `wait` for something, if there is nothing."""
        while True:
            try:
                command, answer = self._commands.get(wait)
            except Empty:
                return
            wait = False
            command(answer)

    def _join(self, key: str, config: TuneConfig, deaths: int, answer: Answer) -> None:
        trial_id = config["trial_id"]
        for other in [k for k, guest in self._guests.items() if guest.trial_id == trial_id]:
            self._fail(self._guests[other], LookupError(f"{trial_id} was told to join again"))
            trial = self._dismiss(other)
            if trial is not None:
                trial.close()
        guest = self._guests[key] = _Guest(trial_id, deaths >= SUSPECT)
        try:
            guest.trial = SearchTrial(config)
        except Exception as error:
            guest.failure = error
        answer.set_result(None)

    def _ask(self, key: str, answer: Answer) -> None:
        guest = self._guests.get(key)
        if guest is None:
            answer.set_exception(LookupError(f"no such trial here: {key}"))
            return
        guest.answer, guest.asked = answer, time.time()
        if guest.failure is not None:
            self._fail(guest, guest.failure)
            return
        assert guest.trial is not None  # or there were a failure
        if guest.trial.unsent:
            self._answer(guest)
            return
        try:
            if guest.seat is None:
                self._look_at(guest.trial)
                guest.seat = self._pool.join(guest.trial.trainer)
        except Exception as error:
            self._fail(guest, error)
            return
        self._admit()

    def _look_at(self, trial: SearchTrial) -> None:
        """Say why trials will not share a stack, once for all whose model is of the same kind."""
        why = trial.trainer.stack.model.unstackable
        if why is not None and why != self._alone:
            trial.note(f"trains in a lane without a stack, since its model cannot share one: {why}")
            self._alone = why

    def _admit(self) -> None:
        """Let those train who are asked; of those under suspicion the first alone."""
        first = next((guest for guest in self._guests.values() if guest.suspect), None)
        for guest in self._guests.values():
            if guest.seat is not None and guest.answer is not None:
                guest.seat.asked = guest is first or not guest.suspect

    def _turn(self) -> None:
        due, failed = self._pool.turn()
        guests = {guest.seat: guest for guest in self._guests.values()}
        for seat, error in failed.items():
            guests[seat].seat = None
            self._fail(guests[seat], error)
        for seat in due:
            self._report(guests[seat], seat)
        if due or failed:
            self._admit()

    def _report(self, guest: _Guest, seat: Seat) -> None:
        """Keep a report that is made, then give it."""
        assert guest.trial is not None
        try:
            guest.trial.keep()
            if guest.trial.snapshots:
                self._pool.show(seat)
            self._answer(guest)
        except Exception as error:
            self._fail(guest, error)
        guest.suspect = False
        if guest.failure is not None or guest.trial.trainer.done:
            self._pool.leave(seat)
            guest.seat = None

    def _answer(self, guest: _Guest) -> None:
        """Give a report to who waits for it, with what Tune's own trials add to theirs."""
        assert guest.trial is not None
        assert guest.answer is not None
        report, now = guest.trial.tell(), time.time()
        guest.reports += 1
        guest.seconds += now - guest.asked
        answer, guest.answer = guest.answer, None
        answer.set_result(
            report
            | {
                "training_iteration": guest.reports,
                "time_this_iter_s": now - guest.asked,
                "time_total_s": guest.seconds,
                "timestamp": int(now),
                "pid": os.getpid(),
                "hostname": platform.node(),
            }
        )

    def _fail(self, guest: _Guest, error: Exception) -> None:
        guest.failure, guest.suspect = error, False
        answer, guest.answer = guest.answer, None
        if answer is not None:
            answer.set_exception(error)

    def _dismiss(self, key: str) -> SearchTrial | None:
        """Take a trial out of everything; gives what is to be closed."""
        guest = self._guests.pop(key, None)
        if guest is None:
            return None
        if guest.seat is not None:
            self._pool.leave(guest.seat)
        if guest.answer is not None:  # who told it to leave does not wait for that any more
            guest.answer.set_result({})
        self._admit()
        return guest.trial
