"""Proposals that join a running stack: its shapes are held, what may differ by lane is not.

A wide space has thousands of signatures, so trials that a sampler proposes freely hardly ever train
in one stack. Some of the proposals are therefore asked with all that fixes shapes as a trial has it
whose stack has a lane free; the sampler chooses the rest as for any other trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial
from pydantic import BaseModel

from trainables.config import TrialConfig
from trainables.config_block import is_lane_field
from vqtune.space_nodes import Option, key_path

# The attribute of a packed trial: the signature that it was asked to have.
PACKED = "packed"
# The largest share of a search's proposals that are packed. In replay a half costs the front
# nothing, three quarters do (`benchmarks.replay.packing`).
SHARE = 0.5

# Free lanes by signature, of the stacks that run.
LanesFree = Callable[[], Mapping[str, int]]


class Packing:
    """Decides whether the next proposal is packed, and into which stack.

    Args:
        lanes_free: what runs.
        seed: the search's.
    """

    def __init__(self, lanes_free: LanesFree, seed: int) -> None:
        """Know no signature yet."""
        self._lanes_free, self._seed = lanes_free, seed
        self._shapes: dict[str, dict[str, Option]] = {}

    def note(self, parameters: Mapping[str, Option], config: TrialConfig) -> None:
        """Remember by which parameters a trial that starts has its signature."""
        self._shapes.setdefault(config.signature(), shape_parameters(parameters, config))

    def choose(self, number: int, trials: Sequence[FrozenTrial]) -> str | None:
        """The signature that the next trial is to have, None where the sampler is free.

        Args:
            number: the next trial's.
            trials: all that the search has proposed so far.
        """
        packed = sum(PACKED in trial.user_attrs for trial in trials)
        if packed + 1 > SHARE * (len(trials) + 1):
            return None
        free = sorted(s for s, lanes in self._lanes_free().items() if lanes > 0)
        # Where nothing that fixes shapes is searched, all trials share a stack anyway.
        known = [signature for signature in free if self._shapes.get(signature)]
        if not known:
            return None
        rng = np.random.default_rng([self._seed, number])
        return known[rng.integers(len(known))]

    def shape(self, signature: str) -> dict[str, Option]:
        """The parameters that are held, for `study.enqueue_trial`."""
        return self._shapes[signature]


def shape_parameters(parameters: Mapping[str, Option], config: TrialConfig) -> dict[str, Option]:
    """Those of a trial's parameters that its signature depends on, choices of branches too."""
    return {k: value for k, value in parameters.items() if not _is_lane(config, key_path(k))}


def _is_lane(config: TrialConfig, path: str) -> bool:
    *blocks, name = path.split(".")
    block: object = config
    for key in blocks:
        block = getattr(block, key, None)
    field = type(block).model_fields.get(name) if isinstance(block, BaseModel) else None
    return field is not None and is_lane_field(field)
