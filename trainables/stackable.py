"""Whether a user's module can run all lanes in one pass: tried, for it is not told by its looks.

Two lanes run both ways, in training with their gradients and in evaluation, and must give the same.
"""

from __future__ import annotations

import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trainables.errors import one_line
from trainables.model import Parameters
from trainables.stacked_modules import run_in_turn, run_stacked

# dtype of the numbers, whether under bf16 autocast, and the part of the largest number by which
# the two ways may differ. The first precision that a module takes decides. In the others it must
# only run: operators have other kernels there, and under vmap autocast adds biases in float32.
_PRECISIONS = (
    (torch.float64, False, 1e-9),
    (torch.float32, False, 1e-4),
    (torch.float32, True, 1e-1),
)

# What torch says when vmap gives up, in a user's terms.
_REASONS = {
    r"called random operation": "draws random numbers, and each lane has a seed of its own",
    r"calling \.item\(\)": "takes a value to the host (.item(), float())",
    r"data-dependent control flow": "branches on the values of a tensor",
    r"dynamic shape": "makes a tensor whose shape depends on values",
    r"autograd\.Function|have vmap support": "calls an autograd.Function without a vmap rule",
    r"doesn't have storage": "reads a tensor's memory (.numpy(), .tolist())",
    r"Batching rule not implemented for (aten::\w+)": r"needs \1, which has no batching rule",
}


def why_in_turn(
    build: Callable[[], nn.Module],
    values: Parameters,
    trained: Sequence[str],
    shape: tuple[int, ...],
) -> str | None:
    """Why a module cannot run in one pass, in one line; None if it can.

    It is tried on the GPU where there is one: there operators may have other rules.

    Args:
        build: makes the module; the two ways may each leave something behind in their own.
        values: its parameters and buffers, of two or more lanes, in float32.
        trained: names of those that are trained.
        shape: of one input.
    """
    lanes = next(iter(values.values())).shape[0] if values else 2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(lanes, 2, *shape, generator=generator)
    # A layer that begins at zero would hide what comes before it.
    noise = {n: 0.01 * torch.randn(values[n].shape, generator=generator) for n in trained}
    values = {**values, **{name: values[name] + more for name, more in noise.items()}}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    failure: Exception | None = None
    decided = False
    for dtype, autocast, tolerance in _PRECISIONS:
        cast = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in values.items()
        }
        inputs = x.to(device, dtype)
        with _undisturbed() as drawn, torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            try:
                alone = _numbers(run_in_turn, build(), cast, trained, inputs)
            except Exception as error:
                # Constants of its own may keep a module from float64.
                failure = error
                continue
            if drawn():
                return "draws random numbers of Python or NumPy"
            try:
                together = _numbers(run_stacked, build(), cast, trained, inputs)
            except Exception as error:
                return one_line(_reason(error))
        if not decided and (differing := _differing(alone, together, tolerance)):
            return f"gives other {differing} in one pass than lane by lane"
        decided = True
    return None if decided else one_line(f"fails lane by lane too: {failure}")


class _Run(Protocol):
    def __call__(self, module: nn.Module, values: Parameters, x: Tensor, /) -> Tensor: ...


def _numbers(
    run: _Run, module: nn.Module, values: Parameters, trained: Sequence[str], x: Tensor
) -> dict[str, list[Tensor]]:
    """All that comes of a pass of training and one of evaluation after it."""
    own = {name: value.clone() for name, value in values.items()}
    source = x.clone().requires_grad_()
    sources = [source, *(own[name].requires_grad_() for name in trained)]
    module.train(True)
    with torch.enable_grad():
        outputs = run(module, own, source.clone())
        gradients: Sequence[Tensor] = ()
        if outputs.requires_grad:
            # Not their square: after a normalisation its gradient is nothing but rounding.
            weight = torch.arange(outputs.numel(), device=x.device).cos().view(outputs.shape)
            gradients = torch.autograd.grad(
                outputs, sources, weight.to(outputs.dtype), materialize_grads=True
            )
    module.train(False)
    with torch.no_grad():
        evaluated = run(module, own, x.clone())
    buffers = [value for name, value in own.items() if name not in trained]
    return {
        "outputs": [outputs, evaluated],
        "gradients": list(gradients),
        "buffers": buffers,
    }


def _differing(
    alone: Mapping[str, list[Tensor]], together: Mapping[str, list[Tensor]], tolerance: float
) -> str | None:
    """What differs by more than `tolerance` of the largest number of its kind."""
    for what, mine in alone.items():
        theirs = together[what]
        if [one.shape for one in mine] != [one.shape for one in theirs]:
            return what
        numbers = [_flat(each) for each in (mine, theirs)]
        atol = tolerance * float(numbers[0].nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(numbers[1], numbers[0], rtol=0, atol=atol, equal_nan=True):
            return what
    return None


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """All their numbers, and a zero that is there if they are none."""
    return torch.cat([torch.zeros(1), *(one.detach().flatten().double().cpu() for one in tensors)])


def _reason(error: Exception) -> str:
    """An exception of vmap: which module, and what it does; torch's first sentence if unknown."""
    owners = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    names = [type(owner).__name__ for owner in owners if isinstance(owner, nn.Module)]
    who = f"{names[-1]} " if names else ""
    for pattern, reason in _REASONS.items():
        if found := re.search(pattern, str(error)):
            return who + found.expand(reason)
    return f"{who}raises under vmap {type(error).__name__}: {str(error).split('. ')[0]}"


@contextmanager
def _undisturbed() -> Iterator[Callable[[], bool]]:
    """Leave all global generators as they were; tells whether Python's or NumPy's were used."""

    def states() -> tuple[object, ...]:
        _, keys, *rest = np.random.get_state()
        return random.getstate(), np.asarray(keys).tobytes(), *rest

    host, legacy, before = random.getstate(), np.random.get_state(), states()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield lambda: states() != before
        finally:
            random.setstate(host)
            np.random.set_state(legacy)
