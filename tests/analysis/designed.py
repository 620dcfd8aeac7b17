"""Runs of many trials whose results follow from a formula, written as a search would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from run_folder import CONFIG, RunFolder

from analysis.records import Records, read_run

Config = dict[str, Any]
Change = Callable[[Config, np.random.Generator], None]
Values = Callable[[Config], dict[str, float]]


def configs(trials: int, change: Change, seed: int = 0) -> list[Config]:
    """Plain configs, each changed by chance."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(trials):
        config = deepcopy(CONFIG)
        change(config, chance)
        made.append(config)
    return made


def searched(folder: RunFolder, made: Sequence[Config], values: Values) -> Records:
    """The records of a search whose trials are complete and have what `values` makes of them."""
    plain = {"samples": 1000, "perplexity": 40.0, "recon_loss": 0.5, "done": True}
    for number, config in enumerate(made):
        folder.trial(f"t{number:04}", plain | values(config), config=config)
    return read_run(folder.path)
