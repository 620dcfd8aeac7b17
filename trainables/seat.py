"""A trial's place in a stack that it shares with others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainables.stack import Stack
from trainables.trainer import Trainer


@dataclass(frozen=True)
class Standing:
    """Where a trial stands: all that moves with it from one stack to another.

    Attributes:
        state: its tensors, on the CPU.
        samples: drawn so far.
        totals: the loss and its terms, summed over the steps since the last report.
    """

    state: dict[str, torch.Tensor]
    samples: int
    totals: dict[str, float]


class Seat:
    """A trial's place in a stack.

    Between its report and the next time it is asked for one, its state at the report is held (at
    first that in which it came), and its lane trains on with the others. If the trial is asked
    before it has passed its next report, nothing of that is in vain; else the lane goes back to
    what is held.

    Attributes:
        trainer: the trial's.
        asked: whether its next report is wanted.
        ahead: whether its lane is on the trial's own course.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Take a trial as it stands in a stack of its own, which it has not left yet."""
        trainer.held = trainer.stack.lane_state(trainer.lane)
        self.trainer, self.asked, self.ahead = trainer, False, False

    @property
    def lane(self) -> int:
        """Its lane in its stack."""
        return self.trainer.lane

    @property
    def wait(self) -> int:
        """Steps to its next report; below 0 where the lane has passed it."""
        return self.trainer.goal - self.trainer.stack.steps[self.lane]

    def standing(self) -> Standing:
        """Where the trial stands, were it asked now."""
        trainer = self.trainer
        if not self.ahead:
            assert trainer.held is not None  # since it came
            return Standing(trainer.held, trainer.samples, {})
        stack = trainer.stack
        totals = stack.lane_totals(self.lane)
        return Standing(stack.lane_state(self.lane), stack.samples[self.lane], totals)

    def move(self, stack: Stack, lane: int, at: Standing) -> None:
        """Take a lane of a stack of the same signature."""
        trainer = self.trainer
        stack.put(lane, trainer.config, at.state, at.samples)
        stack.load_totals(lane, at.totals)
        trainer.stack, trainer.lane = stack, lane
        self.ahead = True

    def leave_for(self, stack: Stack) -> None:
        """Go back to what is held, and wait at another stack for a lane."""
        self.trainer.stack, self.trainer.lane, self.ahead = stack, 0, False


class Bench:
    """A stack of one, in which trials of a signature are looked at one by one.

    Its arithmetic is that of a plain trial, to the bit.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Take over the stack of a trial that is about to move."""
        self.stack, self.evaluator, self.dataset = trainer.stack, trainer.evaluator, trainer.dataset

    def take(self, trainer: Trainer, state: dict[str, torch.Tensor], samples: int) -> None:
        """Let it be a trial's, whose evaluator is the bench's."""
        self.stack.put(0, trainer.config, state, samples)
