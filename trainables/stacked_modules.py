"""A user's module for all lanes: in one pass under vmap, or lane after lane.

In one pass a stack of L lanes launches about as many kernels as one lane. Not every module can run
so: `stackable.py` tries it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.model import Parameters

# They compare the dtypes of their inputs and weights before autocast casts both.
_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_NORMS = (F.batch_norm, F.instance_norm, F.group_norm, F.layer_norm)
_COMPARING = frozenset((*_CONVOLUTIONS, *_TRANSPOSED, *_NORMS))

# Such an operator runs lane by lane inside the pass; who trains cannot do anything about it.
warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet")


def run_stacked(module: nn.Module, values: Parameters, x: Tensor) -> Tensor:
    """All lanes in one pass: [L, B, ...] to [L, B, ...].

    Args:
        module: its own parameters and buffers are not used.
        values: all of them, {name: [L, ...]}; buffers are changed in place.
        x: the lanes' inputs.
    """

    def one(own: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return torch.func.functional_call(module, own, (inputs,))  # type: ignore[no-any-return]

    # Evaluation hands all lanes the same memory, in which no module can change its input in place.
    own = dict(values)
    # batch_norm would update a copy of buffers that do not lie in one piece.
    scattered = [n for n, v in own.items() if not (v.requires_grad or v.is_contiguous())]
    own |= {name: own[name].contiguous() for name in scattered}
    with _FitForVmap(torch.is_autocast_enabled(x.device.type)):
        stacked: Tensor = torch.func.vmap(one, randomness="error")(own, x.contiguous())
    for name in scattered:
        values[name].copy_(own[name])
    return stacked


def run_in_turn(
    module: nn.Module, values: Parameters, x: Tensor, seeds: Sequence[int] = ()
) -> Tensor:
    """The same, lane after lane.

    Args:
        module: as for `run_stacked`.
        values: as for `run_stacked`.
        x: as for `run_stacked`.
        seeds: of what the module draws, one a lane; or none.
    """
    outputs = []
    for i in range(x.shape[0]):
        if seeds:
            torch.manual_seed(seeds[i])
        lane = {name: value[i] for name, value in values.items()}
        outputs.append(torch.func.functional_call(module, lane, (x[i],)))
    return torch.stack(outputs)


class _FitForVmap(TorchFunctionMode):
    """Rewrites two kinds of call: vmap knows no weight norm, and autocast acts only beneath it.

    Any such mode also keeps torch's attention from its path for inference, which has no rule.
    """

    def __init__(self, autocast: bool) -> None:
        super().__init__()
        self.autocast = autocast

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._weight_norm:
            v, g, dim = args
            # Over all axes but `dim`; -1 is none of them.
            axes = [axis for axis in range(v.dim()) if axis != dim]
            return v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))
        if self.autocast and func in _COMPARING:
            others = [a for a in [*args[1:], *(kwargs or {}).values()] if isinstance(a, Tensor)]
            dtype = functools.reduce(torch.promote_types, (o.dtype for o in others), args[0].dtype)
            args = (args[0].to(dtype), *args[1:])
        return func(*args, **(kwargs or {}))
