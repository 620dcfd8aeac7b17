"""Trials that train together in one stack, and come and go between its steps."""

from __future__ import annotations

import numpy as np

from trainables.denormals import flushed_denormals
from trainables.evaluation import Evaluator
from trainables.meter import Meter
from trainables.seat import Bench, Seat, Standing
from trainables.stack import Stack, wait_for
from trainables.trainer import Trainer

# Stacks have one of a few sizes, so that steps are captured for a few shapes only.
SIZES = (1, 4, 16, 64, 128)

# The most steps of a turn: then other stacks get theirs, and who waits for a lane gets it.
TURN = 64

# Turns for which a smaller stack must have been enough before it is made: the next trial is often
# on its way.
_PATIENCE = 8

# From this share of the lanes on all are evaluated in one go, else those that report one by one.
_TOGETHER = 0.5


def size_for(seats: int, most: int) -> int:
    """The size of a stack for so many seats: one of a few, `most` at most."""
    return min(next((size for size in SIZES if size >= seats), seats), most)


class LaneStack:
    """One stack, and who sits in its lanes; a lane that is free trains on for nobody."""

    def __init__(self, bench: Bench, most: int) -> None:
        """Begin without seats; `most` is how many there may ever be."""
        self.bench, self.most = bench, most
        self.seats: list[Seat | None] = []
        self._stack: Stack | None = None
        self._evaluator: Evaluator | None = None
        self._loose = 0  # turns for which a smaller stack would have been enough

    @property
    def taken(self) -> list[Seat]:
        """Those who sit here."""
        return [seat for seat in self.seats if seat is not None]

    @property
    def full(self) -> bool:
        """Whether nobody else may come."""
        return len(self.taken) >= self.most

    @property
    def asked(self) -> list[Seat]:
        """Those whose next report is wanted."""
        return [seat for seat in self.taken if seat.asked]

    def add(self, seat: Seat) -> None:
        """Give a trial a lane; where none is free, the stack is made anew in a larger size.

        Raises:
            RuntimeError: of the device, which has no memory for it; nothing has changed then.
        """
        if None not in self.seats:
            self._resize(size_for(len(self.seats) + 1, self.most), seat)
        lane = self.seats.index(None)
        seat.move(self._here(), lane, seat.standing())
        self.seats[lane] = seat

    def remove(self, seat: Seat) -> None:
        """Let a trial go; its lane is for the next."""
        self.seats[self.seats.index(seat)] = None

    def dissolve(self) -> list[Seat]:
        """Free its memory; gives those who sat here, as they stood at their last report."""
        seats, bench = self.taken, self.bench
        for seat in seats:
            seat.leave_for(bench.stack)
        self.seats, self._stack, self._evaluator = [], None, None
        return seats

    @flushed_denormals()
    def turn(self) -> list[Seat]:
        """Train some steps for those who asked; gives those who have come to their report."""
        asked = self.asked
        for seat in asked:
            if not seat.ahead:
                seat.move(self._here(), seat.lane, seat.standing())
        steps = min([TURN, *(seat.wait for seat in asked)])
        if steps > 0:
            self._shrink()
            self._train(steps)
        return [seat for seat in asked if seat.wait == 0]

    @flushed_denormals()
    def report(self, seats: list[Seat]) -> None:
        """Make the reports of trials that have come to theirs, and hold their state there."""
        together = len(seats) > 1 and len(seats) >= _TOGETHER * len(self.seats)
        found = self._evaluated(seats) if together else {}
        for seat in seats:
            meter, trainer, at = Meter(), seat.trainer, seat.standing()
            metrics, counts = found.get(seat.lane) or self._alone(trainer, at)
            trainer.charge(meter)
            trainer.held = None
            trainer.conclude(at.totals, metrics, counts)
            trainer.held, seat.asked = at.state, False
            self._here().clear_totals(seat.lane)

    def _train(self, steps: int) -> None:
        meter, stack = Meter(), self._here()
        stack.train(steps)
        wait_for(stack.device)  # once a turn, to know what it took
        sharers = [seat for seat in self.taken if seat.ahead]
        for seat in sharers:
            seat.trainer.charge(meter, 1 / len(sharers))
            seat.trainer.trained(meter)
            seat.ahead = seat.wait >= 0

    def _evaluated(self, seats: list[Seat]) -> dict[int, tuple[dict[str, float], list[np.ndarray]]]:
        """Metrics and counts by lane, from one evaluation of all lanes."""
        meter = Meter()
        if self._evaluator is None:
            self._evaluator = Evaluator(self._here(), self.bench.dataset)
        found = self._evaluator.by_lane()
        for seat in seats:
            seat.trainer.charge(meter, 1 / len(seats))
        return {seat.lane: found[seat.lane] for seat in seats}

    def _alone(self, trainer: Trainer, at: Standing) -> tuple[dict[str, float], list[np.ndarray]]:
        """Metrics and counts of one trial."""
        self.bench.take(trainer, at.state, at.samples)
        [found] = self.bench.evaluator.by_lane()
        return found

    def _shrink(self) -> None:
        size = size_for(len(self.taken), self.most)
        self._loose = self._loose + 1 if size < len(self.seats) else 0
        if self._loose > _PATIENCE:
            self._resize(size)

    def _resize(self, size: int, filler: Seat | None = None) -> None:
        """Move those who sit here into a stack of another size, `filler`'s trial in free lanes."""
        seated = self.taken
        standings = [seat.standing() for seat in seated]
        configs = [seat.trainer.config for seat in seated]
        configs += [(filler or seated[0]).trainer.config] * (size - len(configs))
        stack = Stack(configs, self.bench.dataset, self.bench.stack.device, seed=False)
        for lane, (seat, at) in enumerate(zip(seated, standings, strict=True)):
            seat.move(stack, lane, at)
        self.seats = [*seated, *[None] * (size - len(seated))]
        self._stack, self._evaluator, self._loose = stack, None, 0

    def _here(self) -> Stack:
        assert self._stack is not None  # made for the first who comes
        return self._stack
