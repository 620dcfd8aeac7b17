"""The trials that train on one device at once: stacks of those of one signature, turn by turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainables.lane_stack import SIZES, LaneStack
from trainables.memory import OutOfMemoryError, release, told_out_of_memory
from trainables.seat import Bench, Seat
from trainables.stack import wait_for
from trainables.trainer import Trainer


class LanePool:
    """Stacks, one or more a signature, which take turns.

    Trials of one signature share a stack, as long as the device has the memory for it: then there
    are several smaller ones. A trial for which there is too little in a stack of one fails alone,
    and so does one that raises anything else: its stack is taken apart to find out which it is.
    """

    def __init__(self, lanes: int) -> None:
        """Let stacks have up to so many lanes."""
        self.lanes = lanes
        self._stacks: deque[LaneStack] = deque()
        self._where: dict[Seat, LaneStack] = {}
        self._benches: dict[str, Bench] = {}
        self._most: dict[str, int] = {}

    def join(self, trainer: Trainer) -> Seat:
        """Give a trial a lane; its stack is from now on one that it shares."""
        seat, signature = Seat(trainer), trainer.config.signature()
        if signature not in self._benches:
            self._benches[signature] = Bench(trainer)
            alone = trainer.stack.model.unstackable is not None
            self._most.setdefault(signature, 1 if alone else self.lanes)
        # With its own evaluator goes its own stack.
        trainer.evaluator = self._benches[signature].evaluator
        self._place(seat, signature)
        return seat

    def leave(self, seat: Seat) -> None:
        """Let a trial go."""
        stack = self._where.pop(seat, None)
        if stack is None:
            return
        stack.remove(seat)
        if not stack.taken:
            self._stacks.remove(stack)
            signature = seat.trainer.config.signature()
            if all(other.bench is not stack.bench for other in self._stacks):
                del self._benches[signature]

    @property
    def seats(self) -> int:
        """How many trials are here."""
        return len(self._where)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a report."""
        return any(seat.asked for seat in self._where)

    def show(self, seat: Seat) -> None:
        """Let a trial's evaluator be of the trial as it was at its last report."""
        trainer = seat.trainer
        assert trainer.held is not None  # since it joined
        self._where[seat].bench.take(trainer, trainer.held, trainer.samples)

    def turn(self) -> tuple[list[Seat], dict[Seat, Exception]]:
        """Let the next stack train a little.

        Returns:
            The trials whose report is made, and those that have failed, such as since the device
            has no memory for them, which are gone.

        Raises:
            RuntimeError: the device is lost.
        """
        while not self._stacks[0].asked:
            self._stacks.rotate(-1)
        stack = self._stacks[0]
        self._stacks.rotate(-1)
        failed: dict[Seat, Exception] = {}
        reports = {seat: seat.trainer.reports for seat in stack.asked}
        with self._halved(stack, failed):
            stack.report(stack.turn())
        return [seat for seat, n in reports.items() if seat.trainer.reports > n], failed

    def _place(self, seat: Seat, signature: str) -> None:
        bench = self._benches[signature]
        for stack in self._stacks:
            if stack.bench is bench and not stack.full:
                try:
                    with told_out_of_memory(seat.trainer.config):
                        stack.add(seat)
                except OutOfMemoryError:
                    # No more than now, and the others of this signature beside it.
                    self._most[signature] = stack.most = len(stack.seats)
                    continue
                self._where[seat] = stack
                return
        stack = LaneStack(bench, self._most[signature])
        with told_out_of_memory(seat.trainer.config):
            stack.add(seat)
        self._stacks.append(stack)
        self._where[seat] = stack

    @contextmanager
    def _halved(self, stack: LaneStack, failed: dict[Seat, Exception]) -> Iterator[None]:
        """Where the device's memory does not do for a stack, make smaller ones of it.

        Where a step raises anything else, everybody gets a stack of one, in which only that trial
        raises it again.
        """
        size, signature = len(stack.seats), stack.taken[0].trainer.config.signature()
        try:
            with told_out_of_memory(stack.taken[0].trainer.config):
                yield
        except Exception as error:
            short = isinstance(error, OutOfMemoryError)
            if not short:
                release(error)
                wait_for(stack.bench.stack.device)  # raises, if it is lost
            if size == 1:
                [seat] = stack.taken
                failed[seat] = error
                self.leave(seat)
                seat.leave_for(stack.bench.stack)
                return
            self._stacks.remove(stack)
            self._most[signature] = max([s for s in SIZES if s < size]) if short else 1
            seats = stack.dissolve()
            torch.cuda.empty_cache()
            for seat in seats:
                del self._where[seat]
            for seat in seats:
                try:
                    self._place(seat, signature)
                except OutOfMemoryError as alone:
                    failed[seat] = alone
