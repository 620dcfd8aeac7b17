"""A step that is recorded and replayed is the step itself, whatever is due in it.

On a CPU a tape stands for the CUDA graph: it notes down the operators and their tensors, and runs
them again without any of the code that called them.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.trainables.conftest import MIXES, make_config, make_dataset, no_waits
from tests.trainables.test_stack import lanes_of
from trainables.captured import CapturedStep, CudaRecorder
from trainables.config import TrialConfig
from trainables.evaluation import Evaluator
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


@pytest.mark.parametrize("when", ["operators beside recordings", "the first recording"])
def test_recordings_are_given_up_where_there_is_no_memory_for_both(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose plan is new, or is recorded, finds too little memory, half of it done."""
    through, other = (Stack([make_config(MIXES["all"])], make_dataset(), CPU) for _ in range(2))
    captured = other.runner = CapturedStep(other, taped([]))
    run, fails = Stack.run, iter([True])

    def short(stack: Stack, x: Tensor, plans: Any) -> None:
        graphs = any(captured._graphs.values())
        recording = torch._C._len_torch_dispatch_stack() > 0
        wanted = recording if when == "the first recording" else graphs and not recording
        if stack is other and wanted and next(fails, False):
            activations.append(weakref.ref(x_hat := x + 1))
            stack.adam.flat.fill_(7.0)
            raise torch.OutOfMemoryError(f"CUDA out of memory {x_hat.shape}")
        if stack is other and activations:
            assert activations[0]() is None  # what the failed step held is free
            assert not captured._graphs
        run(stack, x, plans)

    activations: list[weakref.ref[Tensor]] = []
    monkeypatch.setattr(Stack, "run", short)
    through.advance(20)
    other.advance(20)
    assert captured.failed is not None
    assert captured.failed.startswith("steps are not captured: OutOfMemoryError: CUDA out of")
    assert activations
    assert_equal(other, through)


@pytest.mark.parametrize("mix", MIXES)
def test_the_memory_of_a_stack_is_free_as_soon_as_it_is_left(mix: str) -> None:
    """Not when Python next looks for circles: on a GPU the next stack needs it."""
    stack = Stack([make_config(MIXES[mix])] * 2, make_dataset(), CPU)
    stack.runner = CapturedStep(stack, taped([]))
    stack.advance(3)
    evaluator = Evaluator(stack, make_dataset())
    evaluator.evaluate()
    codes = {id(t): t for book in stack.rebindable for t in book.values()}
    held = [weakref.ref(t) for t in (stack.adam.flat, *codes.values())]
    del codes
    gc.collect()
    gc.disable()
    try:
        del stack, evaluator
        assert [ref for ref in held if ref() is not None] == []
    finally:
        gc.enable()


def drawing_nothing(example_shape: tuple[int, ...], dim: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv1d(example_shape[0], dim, 1), nn.Conv1d(dim, example_shape[0], 1)


def test_a_recorded_step_of_a_users_module_sets_no_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a GPU allows in no recording."""
    values = make_config(MIXES["ema"]).to_dict()
    values["model"] = {"kind": "factory", "factory": f"{__name__}:drawing_nothing"}
    trial = TrialConfig.from_dict(values)
    through, replayed = (Stack([trial], make_dataset(), CPU) for _ in range(2))
    through.advance(10)
    captured = replayed.runner = CapturedStep(replayed, taped([]))

    def seeded(_: int) -> None:
        raise AssertionError("a seed was set")

    monkeypatch.setattr(torch, "manual_seed", seeded)
    replayed.advance(10)
    assert captured.failed is None
    assert_equal(replayed, through)


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
