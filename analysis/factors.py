"""From the configs of trials to the factors in which they differ, with the branch each belongs to.

A technique that is on or off, or of one of several kinds, is a factor, and so is each value within
it, which exists only where it is on. `what_if` turns factors into a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

OFF, ON = "off", "on"
# What is no choice of a search: where chance starts, and where an exported config came from.
_APART = ("seed", "provenance")
# Numbers spread over this much may be compared by their logarithms.
_LOG_SPREAD = 10.0
# So many values of a number are told as they come, more by their order.
_FEW = 4
# What exists in fewer trials than this is no factor.
_FEWEST = 3


@dataclass(frozen=True)
class Factor:
    """Something in which the trials differ.

    Attributes:
        name: its path in the config: `codebook.respawn` for a technique as such, with the levels
            `off`, and `on` or its kinds; `codebook.respawn.period` for a value within it.
        codes: [n] the place in `levels`, or the number; NaN where it does not exist.
        levels: the values of a choice; none for a number.
        log: whether a number's logarithm is what matters.
        block: whether it is a technique as such, not a value.
        parent: the name of the factor that decides whether it exists; empty where it always does.
        branch: when it exists, in words; empty for always.
        same: what always changes together with it, and is no factor of its own.

    """

    name: str
    codes: npt.NDArray[np.float64]
    levels: tuple[Any, ...] = ()
    log: bool = False
    block: bool = False
    parent: str = ""
    branch: str = ""
    same: tuple[str, ...] = ()

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """In which trials it exists; a mask [n]."""
        return ~np.isnan(self.codes)

    @property
    def places(self) -> npt.NDArray[np.float64]:
        """A number's places [n] between its least, 0, and its largest, 1; a choice's codes."""
        if self.levels:
            return self.codes
        values = np.log(self.codes) if self.log else self.codes
        low, high = np.nanmin(values), np.nanmax(values)
        return np.asarray((values - low) / (high - low))


def factors(
    configs: Sequence[Mapping[str, Any]], searched: Mapping[str, bool] | None = None
) -> list[Factor]:
    """Find in what nested configs [n] differ, in the order in which they name it.

    A null block is a technique that is off, a null value one that does not exist there; seeds do
    not count. What is the same in all configs is no factor. What says the same as another one is
    counted once, under one name: two choices that split the trials alike, and a value that
    follows from which techniques are on, as a codebook's size does where three codebooks of 8
    take the place of one of 512.

    `searched` is what the space searches, see `searched_values`; without it no value is taken to
    follow from techniques.
    """
    rows = [_walk(config) for config in configs]
    paths = list(dict.fromkeys(path for row in rows for path in row))
    found: list[Factor] = []
    for path in paths:
        if path.split(".")[0] not in _APART:
            factor = _factor(path, [_at(row, path) for row in rows])
            if factor is not None:
                found.append(_on_its_scale(factor, (searched or {}).get(path, factor.log)))
    found = _without_twins(found)
    return _in_branches(found if searched is None else _without_followers(found, searched))


def searched_values(spec: Mapping[str, Any]) -> dict[str, bool] | None:
    """Which values a run's space searches, by path, and whether by their logarithms.

    None where the spec holds no space. A value that a choice sets to a constant is not among them.
    """
    space = spec.get("space")
    parameters = space.get("parameters") if isinstance(space, Mapping) else None
    return _leaves(parameters) if isinstance(parameters, Mapping) else None


def _leaves(node: Any, path: str = "") -> dict[str, bool]:
    if not isinstance(node, Mapping):
        return {}
    if path and not {"min", "values"}.isdisjoint(node):
        return {path: node.get("distribution") == "log_uniform_values" or _wide(node)}
    found: dict[str, bool] = {}
    for key, value in node.items():
        if key == "choices" and isinstance(value, Mapping):
            for option in value.values():
                found |= _leaves(option, path)
        else:
            found |= _leaves(value, f"{path}.{key}" if path else str(key))
    return found


def _wide(node: Mapping[str, Any]) -> bool:
    """Whether the values to choose from are spread over orders of magnitude."""
    values = node.get("values")
    numbers = values if isinstance(values, list) else []
    sound = [v for v in numbers if isinstance(v, (int, float)) and v > 0]
    return bool(sound) and len(sound) == len(numbers) and max(sound) / min(sound) >= _LOG_SPREAD


@dataclass(frozen=True)
class _Block:
    """A mapping in a config: `kind` is its level."""

    kind: str = ON


_OFF_BLOCK = _Block(OFF)


def _walk(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Key blocks and leaves by their paths; a block's kind is told by the block."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            kind = value.get("kind")
            found[path] = _Block(kind) if isinstance(kind, str) else _Block()
            found |= _walk({k: v for k, v in value.items() if k != "kind"}, path + ".")
        else:
            found[path] = tuple(value) if isinstance(value, list) else value
    return found


_ABSENT = object()


def _at(row: Mapping[str, Any], path: str) -> Any:
    """What a config has at a path; `_ABSENT` where the block around it is off."""
    parent = path.rpartition(".")[0]
    if parent and not isinstance(row.get(parent), _Block):
        return _ABSENT
    return row.get(path)


def _factor(path: str, values: Sequence[Any]) -> Factor | None:
    """The factor at a path, or None where it does not vary or is not the same sort of thing."""
    if any(isinstance(value, _Block) for value in values):
        kinds = [
            np.nan if value is _ABSENT else (value if isinstance(value, _Block) else _OFF_BLOCK)
            for value in values
        ]
        named = [value.kind if isinstance(value, _Block) else None for value in kinds]
        return _choice(path, named, block=True)
    present = [None if value is _ABSENT else value for value in values]
    if all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        for value in present
    ):
        return _number(path, present)
    return _choice(path, present, block=False)


def _choice(path: str, values: Sequence[Any], block: bool) -> Factor | None:
    levels = sorted({value for value in values if value is not None}, key=_order)
    if len(levels) < 2 or sum(value is not None for value in values) < _FEWEST:
        return None
    place = {level: float(i) for i, level in enumerate(levels)}
    codes = np.array([math.nan if value is None else place[value] for value in values])
    return Factor(path, codes, tuple(levels), block=block)


def _order(level: Any) -> tuple[bool, str]:
    return level != OFF, str(level)


def _number(path: str, values: Sequence[float | None]) -> Factor | None:
    codes = np.array([math.nan if value is None else float(value) for value in values])
    codes[~np.isfinite(codes)] = math.nan
    known = codes[~np.isnan(codes)]
    if len(known) < _FEWEST or known.min() == known.max():
        return None
    return Factor(path, codes, log=_looks_log(known))


def _looks_log(values: npt.NDArray[np.float64]) -> bool:
    """Whether numbers spread over orders of magnitude, with no more of them at the high end."""
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    if not (low > 0 and high / low >= _LOG_SPREAD):
        return False
    place = (middle - low) / (high - low)
    log_place = np.log(middle / low) / np.log(high / low)
    return bool(abs(log_place - 0.5) < abs(place - 0.5))


def _on_its_scale(factor: Factor, log: bool) -> Factor:
    """Set `log`; what has no logarithm, a weight of 0, comes half as large as the least else."""
    if not log or factor.levels or not (factor.codes > 0).any():
        return factor
    least = factor.codes[factor.codes > 0].min()
    codes = np.where(factor.codes <= 0, least / 2, factor.codes)
    return replace(factor, codes=codes, log=len(np.unique(codes[factor.active])) > 1)


def _without_twins(found: Sequence[Factor]) -> list[Factor]:
    """Keep one of those that split the trials alike: a technique, or the first."""
    kept: dict[tuple[int, ...], Factor] = {}
    for factor in found:
        split = _split(factor)
        twin = kept.get(split)
        if twin is None:
            kept[split] = factor
        elif factor.block and not twin.block:  # a technique says more than what it comes with
            kept[split] = replace(factor, same=(twin.name, *twin.same))
        else:
            kept[split] = replace(twin, same=(*twin.same, factor.name))
    return list(kept.values())


def _split(factor: Factor) -> tuple[int, ...]:
    """Number a factor's values [n]: those that split the trials alike have the same numbers.

    A few values are numbered as they come; many by their order, up to its direction, since nearly
    all trials differ in two numbers that have nothing to do with each other.
    """
    values, first, ranks = np.unique(factor.codes, return_index=True, return_inverse=True)
    if factor.levels or len(values) <= min(_FEW, len(ranks) // 2):
        return tuple(np.argsort(np.argsort(first))[ranks].tolist())
    known = len(values) - (not factor.active.all())
    back = np.where(factor.active, known - 1 - ranks, ranks)
    return min(tuple(ranks.tolist()), tuple(back.tolist()))


def _without_followers(found: Sequence[Factor], searched: Mapping[str, bool]) -> list[Factor]:
    """Leave out values that the space does not search and that follow from techniques.

    A value follows if each of its levels, but for one, is exactly where certain techniques are on,
    off or of a certain kind.
    """
    blocks = [factor for factor in found if factor.block]
    follows: dict[str, set[str]] = {}
    for factor in found:
        if not factor.block and factor.name not in searched:
            sources = _sources(factor, blocks)
            if sources:
                follows[factor.name] = sources
    return [
        replace(
            factor,
            same=(*factor.same, *(n for n, sources in follows.items() if factor.name in sources)),
        )
        for factor in found
        if factor.name not in follows
    ]


def _sources(factor: Factor, blocks: Sequence[Factor]) -> set[str]:
    """The techniques that a value follows from; none where it does not."""
    sources: set[str] = set()
    left_over = 0
    for level in np.unique(factor.codes[factor.active]):
        here = factor.codes == level
        within = [
            (block.name, there)
            for block in blocks
            for code in range(len(block.levels))
            if (there := block.codes == code).any() and not (there & ~here).any()
        ]
        if within and (np.any([there for _, there in within], axis=0) == here).all():
            sources |= {name for name, _ in within}
        else:
            left_over += 1
    return sources if left_over <= 1 else set()


def _in_branches(found: Sequence[Factor]) -> list[Factor]:
    """Say of each factor when it exists."""
    blocks = {factor.name: factor for factor in found if factor.block}
    placed = []
    for factor in found:
        above = factor.name.split(".")[:-1]
        parents = [".".join(above[:end]) for end in range(len(above), 0, -1)]
        parent = next((blocks[path] for path in parents if path in blocks), None)
        if parent is None or factor.active.all():
            placed.append(factor)
            continue
        codes = np.unique(parent.codes[factor.active & parent.active])
        kinds = " or ".join(str(parent.levels[int(code)]) for code in codes)
        placed.append(replace(factor, parent=parent.name, branch=f"{parent.name} {kinds}"))
    return placed
