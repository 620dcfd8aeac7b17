"""How the processes that train one codebook on different batches agree on it (DDP)."""

from __future__ import annotations

import torch
from torch import Tensor


class Sync:
    """One process: nothing to agree on."""

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        return values

    def same(self, values: Tensor) -> Tensor:
        """The values of the first process, in all of them."""
        return values


class DistributedSync(Sync):
    """The processes of torch.distributed's default group.

    Statistics are summed, so that an EMA update is that of the joined batch; codes that are set
    anew are those of the first process.
    """

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        torch.distributed.all_reduce(values)
        return values

    def same(self, values: Tensor) -> Tensor:
        """The values of the first process, in all of them."""
        shared = values.contiguous()
        torch.distributed.broadcast(shared, 0)
        return shared


ALONE = Sync()


def default_sync() -> Sync:
    """Agree with the other processes where torch.distributed has been set up."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return DistributedSync() if distributed.get_world_size() > 1 else ALONE
    return ALONE
