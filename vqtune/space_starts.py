"""What a search tries first: points of a space that are known to be good.

A start names parameters as `vqtune spaces NAME` lists them; all others are as the baseline has
them. The baseline itself is always first and needs no start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainables.config import TrialConfig
from vqtune.space_errors import check_keys, refusal, shown
from vqtune.space_nodes import Choice, Option, Parameter, Pick

# Values for TrialConfig from a pick of every parameter.
Resolve = Callable[[Pick], dict[str, Any]]


def check_starts(starts: object) -> list[dict[str, Option]]:
    """Refuse what is not a list of mappings."""
    if not isinstance(starts, list):
        raise refusal("starts", shown(starts), "a list of mappings from parameters to values")
    for i, start in enumerate(starts):
        if not isinstance(start, dict) or not start:
            raise refusal(f"starts.{i}", shown(start), "a mapping from parameters to values")
    return starts


def start_points(
    starts: Sequence[Mapping[str, Option]], searched: Mapping[str, Parameter], resolve: Resolve
) -> list[dict[str, Option]]:
    """Every start as {parameter: option}, with the parameters of its own branches only.

    Raises:
        InputError: a parameter or value that the space does not have, one of a branch that the
            start does not take, or a config that TrialConfig refuses.
    """
    return [_point(f"starts.{i}", start, searched, resolve) for i, start in enumerate(starts)]


def _point(
    name: str, start: Mapping[str, Option], searched: Mapping[str, Parameter], resolve: Resolve
) -> dict[str, Option]:
    check_keys(start, searched, name)
    for key, value in start.items():
        _check_value(f"{name}.{key}", value, searched[key])
    point: dict[str, Option] = {}

    def pick(parameter: str, node: Parameter) -> Option:
        point[parameter] = start.get(parameter, node.plain)
        return point[parameter]

    TrialConfig.from_dict(resolve(pick), name)
    for key in start:
        if key not in point:
            raise refusal(
                f"{name}.{key}", "a branch that the start does not take", ", ".join(point)
            )
    return point


def _check_value(name: str, value: Option, node: Parameter) -> None:
    if isinstance(node, Choice):
        if not any(value == label and type(value) is type(label) for label in node.branches):
            raise refusal(name, shown(value), node.text())
        return
    number = type(value) is int or (type(value) is float and not node.integer)
    if not number or not node.low <= value <= node.high:  # type: ignore[operator]
        raise refusal(name, shown(value), node.text())
