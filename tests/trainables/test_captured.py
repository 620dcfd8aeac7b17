"""A step that is recorded and replayed is the step itself, whatever is due in it.

On a CPU a tape stands for the CUDA graph: it notes down the operators and their tensors, and runs
them again without any of the code that called them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.trainables.conftest import MIXES, make_config, make_dataset, no_waits
from tests.trainables.test_stack import lanes_of
from trainables.captured import CapturedStep, CudaRecorder
from trainables.config import TrialConfig
from trainables.stack import Stack

CPU = torch.device("cpu")


class Tape(TorchDispatchMode):
    """Operators in the order in which they ran."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
        # Neither views nor what was changed in place: these are where they were.
        new = [t for t in tensors(out) if t.untyped_storage().data_ptr() not in given]
        self.calls.append((func, args, kwargs or {}, new))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, new in self.calls:
            out = func(*args, **kwargs)
            given = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
            fresh = [t for t in tensors(out) if t.untyped_storage().data_ptr() not in given]
            for static, value in zip(new, fresh, strict=True):
                static.copy_(value)


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def taped(tapes: list[Tape]) -> Callable[[Callable[[], None]], Tape]:
    def record(work: Callable[[], None]) -> Tape:
        with Tape() as tape:
            work()
        tapes.append(tape)
        return tape

    return record


@pytest.mark.parametrize("mix", MIXES)
def test_replayed_steps_are_the_steps(mix: str) -> None:
    dataset, trials = make_dataset(), lanes_of(mix, "float64")
    through, replayed = Stack(trials, dataset, CPU), Stack(trials, dataset, CPU)
    tapes: list[Tape] = []
    captured = replayed.runner = CapturedStep(replayed, taped(tapes))
    for _ in range(2):
        through.advance(20)
        replayed.advance(20)
        # Another trial takes a lane, from where it stands.
        guest = Stack([trials[3]], dataset, CPU)
        guest.advance(5)
        for stack in (through, replayed):
            stack.put(1, trials[3], guest.lane_state(0), guest.samples[0])
    assert captured.failed is None
    assert sum(tape.replays for tape in tapes) > 20
    for lane in range(4):
        theirs, mine = through.lane_state(lane), replayed.lane_state(lane)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert through.totals.keys() == replayed.totals.keys()
    assert all(torch.equal(replayed.totals[name], total) for name, total in through.totals.items())


@pytest.mark.parametrize("mix", ["entropy", "residual"])
def test_what_was_recorded_reads_the_settings_of_whoever_comes_later(mix: str) -> None:
    """A lane's entropy or dropout is switched off and on: the first graph fits again."""
    dataset, trials = make_dataset(), lanes_of(mix, "float64")[1:2]
    values = trials[0].to_dict()
    book = values["codebook"]
    book.update(entropy=book["entropy"] and book["entropy"] | {"weight": 0.0})
    book.update(residual=book["residual"] and book["residual"] | {"dropout": 0.0})
    off = TrialConfig.from_dict(values)
    book.update(entropy=book["entropy"] and book["entropy"] | {"weight": 0.7})
    book.update(residual=book["residual"] and book["residual"] | {"dropout": 0.6})
    on = TrialConfig.from_dict(values)
    through, replayed = Stack(trials, dataset, CPU), Stack(trials, dataset, CPU)
    captured = replayed.runner = CapturedStep(replayed, taped([]))
    for trial in (trials[0], off, on):
        for stack in (through, replayed):
            stack.put(0, trial, stack.lane_state(0), stack.samples[0])
            stack.advance(12)
    assert captured.failed is None
    assert_equal(replayed, through)


def test_a_recording_that_gives_other_numbers_is_not_used() -> None:
    class Nothing:
        def replay(self) -> None:
            """A graph that has lost its operators."""

    def record(work: Callable[[], None]) -> Nothing:
        work()
        return Nothing()

    through, other = (Stack([make_config(MIXES["all"])], make_dataset(), CPU) for _ in range(2))
    captured = other.runner = CapturedStep(other, record)
    through.advance(10)
    other.advance(10)
    assert captured.failed == "steps are not captured: replayed they give other numbers"
    assert_equal(other, through)


def test_a_step_that_cannot_be_recorded_runs_all_the_same() -> None:
    def record(work: Callable[[], None]) -> Any:
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    through, other = (Stack([make_config(MIXES["all"])], make_dataset(), CPU) for _ in range(2))
    captured = other.runner = CapturedStep(other, record)
    through.advance(10)
    other.advance(10)
    assert captured.failed == (
        "steps are not captured: RuntimeError: operation not permitted when stream is capturing "
        "more of it"
    )
    assert_equal(other, through)


def assert_equal(one: Stack, other: Stack) -> None:
    mine, theirs = one.lane_state(0), other.lane_state(0)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mix", MIXES)
def test_a_cuda_graph_replays_the_steps_without_a_wait(mix: str) -> None:
    config = make_config(MIXES[mix], samples=8000, precision="float32")
    captured, eager = (Stack([config] * 4, make_dataset()) for _ in range(2))
    runner = captured.runner
    assert isinstance(runner, CapturedStep)
    eager.runner = None
    captured.advance(200)
    eager.advance(200)
    assert runner.failed is None
    assert captured.totals["recon_loss"].tolist() == pytest.approx(
        eager.totals["recon_loss"].tolist(), rel=0.05
    )
    with no_waits():
        captured.advance(1000)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_runs_what_it_has_recorded() -> None:
    x = torch.zeros(4, device="cuda")
    graph = CudaRecorder(x.device)(lambda: x.add_(1))
    assert x.tolist() == [1.0] * 4  # what ran before the recording
    graph.replay()
    assert x.tolist() == [2.0] * 4
