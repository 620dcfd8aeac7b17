"""A stack's step captured as a graph and replayed: one launch in place of a hundred.

A graph is a list of operators on tensors that stay where they are. What may differ between two
steps beside the tensors' contents is the plan (respawns and the like that are due, levels that are
dropped) and the layout of the lanes' settings: each pair of these has a graph of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from trainables.errors import named
from trainables.memory import release

if TYPE_CHECKING:
    from trainables.stack import Plans, Stack

# A replayed step may differ from the same step run by the operators themselves by rounding, which
# Adam can enlarge to the size of an update in a few parameters: by at most this share of all of it.
_AGREES = 0.5


class Graph(Protocol):
    """Operators that were recorded."""

    def replay(self) -> None:
        """Run them again, on the same tensors."""
        ...


# Records what a function runs, or only notes it down: what it did to tensors is made up for.
Recorder = Callable[[Callable[[], None]], Graph]


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        """Set up the pool and the stream to record on."""
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Callable[[], None]) -> Graph:
        """Record `work`, which runs once before, since libraries allocate at first use."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream):
                work()
        finally:
            here.wait_stream(self._stream)
        _drop_workspaces()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Not by `torch.cuda.graph`, which stays on the stream when the capture cannot be ended.
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool)
            try:
                work()
            finally:
                graph.capture_end()
        _drop_workspaces()
        return graph


def _drop_workspaces() -> None:
    """Let cuBLAS take its scratch memory anew, in a recording from the graphs' own pool.

    It keeps one for each stream, streams are handed out again after 32, and it is freed with the
    first graph that was recorded on one: another stack's graphs would go on with it.
    """
    torch._C._cuda_clearCublasWorkspaces()


class CapturedStep:
    """Takes the place of `Stack.run`.

    A plan that comes up for the first time runs by its operators, as the rare ones always will; at
    the second time it is recorded, and the recording is held against the operators before it is
    used. Where it cannot be recorded or does not agree, or where the device has no memory for both
    recordings and operators, all steps run by their operators from then on.

    Attributes:
        failed: why nothing is recorded; None where all is well.
    """

    def __init__(self, stack: Stack, record: Recorder) -> None:
        """Record what `stack` runs."""
        self.failed: str | None = None
        self._weak, self._record = weakref.ref(stack), record
        self._graphs: dict[object, Graph | None] = {}
        self._x: Tensor | None = None
        self._static: dict[tuple[int, str], Tensor] = {}

    @property
    def _stack(self) -> Stack:
        stack = self._weak()  # which holds this one: no circle, or its memory would be freed late
        assert stack is not None
        return stack

    def __call__(self, x: Tensor, plans: Plans) -> None:
        """Run a step on examples [L, B, C, ...]."""
        if self.failed is not None:
            self._stack.run(x, plans)
            return
        if self._x is None:
            self._x = torch.empty_like(x)
        self._x.copy_(x)
        key = (plans, self._stack.layout)
        if key not in self._graphs:
            self._graphs[key] = None
            self._rare(plans)
        elif (graph := self._graphs[key]) is not None:
            graph.replay()
        else:
            self._record_and_run(key, plans)

    def _rare(self, plans: Plans) -> None:
        """Run a step by its operators; their memory is not that of the graphs."""
        if not any(self._graphs.values()):
            self._run(plans)
            return
        before = self._tensors()
        try:
            self._run(plans)
        except torch.OutOfMemoryError as error:
            self._run_instead(error, before, plans)

    def _run(self, plans: Plans) -> None:
        assert self._x is not None
        self._stack.run(self._x, plans)
        self._settle()

    @torch.no_grad()
    def _settle(self) -> None:
        """Move what the step has set to new tensors into those that it read."""
        for i, tensors in enumerate(self._stack.rebindable):
            for name, value in tensors.items():
                if value.is_leaf and value.requires_grad:
                    continue  # the optimiser's, changed in place
                static = self._static.setdefault((i, name), value.detach())
                if static is not value:
                    static.copy_(value)
                    tensors[name] = static

    def _record_and_run(self, key: object, plans: Plans) -> None:
        before = self._tensors()
        try:
            graph = self._record(lambda: self._run(plans))
            self._put(before)
            graph.replay()
            replayed = self._tensors()
            self._put(before)
            self._run(plans)
        except Exception as error:
            graph = None  # with its memory
            self._run_instead(error, before, plans)
            return
        if _agree(before, replayed, self._tensors()):  # waits, once a recording
            self._graphs[key] = graph
        else:
            self._give_up("replayed they give other numbers")

    def _run_instead(self, error: Exception, before: list[Tensor], plans: Plans) -> None:
        """Give up over an error, and run the step that it has broken off by its operators."""
        release(error)
        # Tensors of a recording that was given up are not to be read.
        for i, tensors in enumerate(self._stack.rebindable):
            for name, value in tensors.items():
                tensors[name] = self._static.get((i, name), value)
        self._put(before)
        self._give_up(named(error))
        self._run(plans)

    def _give_up(self, why: str) -> None:
        """Record no more, and free what was recorded."""
        self.failed = f"steps are not captured: {why[:200]}"
        self._graphs.clear()
        torch.cuda.empty_cache()

    def _tensors(self) -> list[Tensor]:
        """Copies of all that a step changes."""
        return [value.detach().clone() for value in self._changing()]

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for mine, value in zip(self._changing(), values, strict=True):
            mine.copy_(value)

    def _changing(self) -> list[Tensor]:
        stack = self._stack
        adams = [adam for adam in (stack.adam, stack.codebook_adam) if adam is not None]
        buffers = [t for adam in adams for t in (adam.flat, adam.mean, adam.square, adam.steps)]
        return [*buffers, *stack.buffers.values(), *self._static.values()]


def _agree(before: list[Tensor], replayed: list[Tensor], run: list[Tensor]) -> bool:
    """Whether two steps from the same tensors led to the same, up to what rounding may do."""
    for values in zip(before, replayed, run, strict=True):
        old, mine, theirs = (value.double().nan_to_num() for value in values)
        if (mine - theirs).norm() > _AGREES * (theirs - old).norm() + 1e-6 * theirs.norm():
            return False
    return True
