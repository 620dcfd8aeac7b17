"""Validation of a search space by building configs: limits of fields, combinations of them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.shares import Shares
from vqtune.space_errors import refusal
from vqtune.space_nodes import Constant, Pick, RandomTrial, Section, key_path, leaves

DRAWS = 64
# Trials are compared at equal samples, at the same moments, on the same held-out latents and in
# the same arithmetic, so these are not searched, nor are their blocks put into branches.
_SHARED = re.compile(
    r"seed|data(\..*)?|evaluation(\..*)?|training(\.(samples|reports|precision))?",
)

# Values for TrialConfig from a pick of every parameter, and the names of all nodes on the way.
Resolve = Callable[[Pick], tuple[dict[str, Any], list[str]]]


def check_shared(tree: Section) -> None:
    """Refuse to search what has to be the same for all trials."""
    for leaf in leaves(tree):
        differs = leaf.branch or not isinstance(leaf.node, Constant)
        if _SHARED.fullmatch(key_path(leaf.name)) and differs:
            raise refusal(leaf.name, "a search", "a constant, so that trials are comparable")


def check_resources(resources: Shares, tree: Section, baseline: Callable[[], TrialConfig]) -> None:
    """Refuse a rule about what neither the space nor the baseline's config has."""
    if resources.rules:
        named = {key_path(leaf.name) for leaf in leaves(tree)}
        resources.check_paths([*named, *_paths(baseline().to_dict())])


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")


def check_configs(tree: Section, resolve: Resolve) -> None:
    """Refuse a space that can propose a config that TrialConfig refuses.

    The end points and values of each parameter are tried one by one, all others at their first.
    Then combinations are: drawn at random, and every other time from end points only, since that
    is where impossible combinations lie.
    """
    for leaf in leaves(tree):
        for option in [] if isinstance(leaf.node, Constant) else leaf.node.ends():
            pins = {**leaf.branch, leaf.name: option}
            _build(resolve, lambda name, node: pins.get(name, node.ends()[0]))  # noqa: B023
    rng = random.Random(0)
    trial = RandomTrial(rng)
    for _ in range(DRAWS // 2):
        _build(resolve, lambda name, node: rng.choice(node.ends()))
        _build(resolve, lambda name, node: node.suggest(name, trial))


def _build(resolve: Resolve, pick: Pick) -> None:
    """Build one config; a refusal names the parameter as the space does, branches included."""
    values, seen = resolve(pick)
    try:
        TrialConfig.from_dict(values, "")
    except InputError as error:
        names = {key_path(name): name for name in seen}
        path, colon, reason = str(error).partition(": ")
        head, tail = path, ""
        while head and head not in names:  # an element of a list, or a key that is missing
            head, _, last = head.rpartition(".")
            tail = f".{last}{tail}"
        raise InputError(f"{names.get(head, '')}{tail}{colon}{reason}".lstrip(".")) from None
