"""The tree that a space file becomes: constants, parameters to search, branches.

`space_parser` builds it; `spaces` walks it to ask Optuna, to draw at random, to enumerate a grid.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from vqtune.space_errors import refusal

# What Optuna's storages keep as a parameter's value.
Option: TypeAlias = bool | int | float | str | None


class TrialLike(Protocol):
    """What a space asks of an Optuna trial, or of what stands in for one."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a float of [low, high]."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return an integer of [low, high]."""

    def suggest_categorical(self, name: str, choices: Sequence[Option]) -> Any:
        """Return one of the choices."""


class RandomTrial:
    """Stands in for an Optuna trial: every suggestion is drawn from its own distribution."""

    def __init__(self, rng: random.Random) -> None:
        """Draw from this generator."""
        self._rng = rng

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform, log-uniform, or uniform over low, low + step, ..., high."""
        if step is not None:
            return float(low + step * self._rng.randint(0, round((high - low) / step)))
        if log:
            value = math.exp(self._rng.uniform(math.log(low), math.log(high)))
            return float(min(max(value, low), high))
        return self._rng.uniform(low, high)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Uniform or log-uniform, both ends included."""
        if log:  # half an integer of room on either side, or the ends come up half as often
            value = math.exp(self._rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(max(round(value), low), high)
        return self._rng.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Option]) -> Option:
        """Each choice as likely as any other."""
        return self._rng.choice(choices)


# --- nodes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    """A value that every trial shares."""

    value: Any


@dataclass(frozen=True)
class Section:
    """A block of TrialConfig, its keys in the order of the file.

    Where `choices` stands beside them, the branch chosen is laid over them. Their parameters exist
    in every branch: the parser sees to it that a branch replaces nothing that is searched.
    """

    children: dict[str, Node]
    choice: Choice | None = None


@dataclass(frozen=True)
class Choice:
    """One of several nodes: constants for `values`, blocks or null for `choices`.

    Optuna sees only the labels, for its storages hold no lists and no blocks. The parameters
    inside a branch exist only where its label is chosen.
    """

    branches: dict[Option, Node]
    plain: Option  # TrialConfig's default where the space allows it, else the first label

    def suggest(self, name: str, trial: TrialLike) -> Option:
        """Let the trial choose a label."""
        label: Option = trial.suggest_categorical(name, tuple(self.branches))
        return label

    def ends(self) -> list[Option]:
        """All labels: validation tries each of them."""
        return list(self.branches)

    def size(self) -> int:
        """How many labels there are."""
        return len(self.branches)

    def options(self) -> Iterable[Option]:
        """All labels."""
        return self.branches

    def text(self) -> str:
        """Put the choice in words."""
        *most, last = ("null" if label is None else str(label) for label in self.branches)
        return f"{', '.join(most)} or {last}" if most else last


@dataclass(frozen=True)
class Range:
    """Numbers of [low, high]: integers or floats, uniform, log-uniform or in steps."""

    low: float
    high: float
    plain: float
    integer: bool = False
    log: bool = False
    step: float | None = None

    def suggest(self, name: str, trial: TrialLike) -> Option:
        """Let the trial choose a number."""
        if self.integer:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> list[Option]:
        """Both numbers that bound all others."""
        return [self.low, self.high]

    def size(self) -> int | None:
        """How many numbers there are, None where the range is continuous."""
        step = self.step or (1 if self.integer else None)
        return None if step is None else round((self.high - self.low) / step) + 1

    def options(self) -> Iterable[Option]:
        """Every number of a range that is not continuous."""
        return (self.low + (self.step or 1) * i for i in range(self.size() or 0))

    def text(self) -> str:
        """Put the distribution in words."""
        words = f"{self.low:.12g} to {self.high:.12g}"
        if self.step is not None:
            return f"{words} in steps of {self.step:.12g}"
        return f"{words}, {'log-' if self.log else ''}uniform{' integers' if self.integer else ''}"


Parameter: TypeAlias = Choice | Range
Node: TypeAlias = Constant | Section | Parameter
Pick: TypeAlias = Callable[[str, Parameter], Option]


# --- walks ---------------------------------------------------------------------------------------


def resolve(node: Node, pick: Pick, name: str = "", seen: list[str] | None = None) -> Any:
    """Plain values, each parameter as `pick` has it; `seen` collects the names on the way."""
    if seen is not None:
        seen.append(name)
    if isinstance(node, Constant):
        return copy.deepcopy(node.value)
    if isinstance(node, Section):
        own = {k: resolve(child, pick, join(name, k), seen) for k, child in node.children.items()}
        if node.choice is None:
            return own
        return laid_over(own, resolve(node.choice, pick, name or ROOT, seen))
    option = pick(name, node)
    if isinstance(node, Range):
        return option
    branch = node.branches[option]
    return resolve(
        branch, pick, name if isinstance(branch, Constant) else inside(name, option), seen
    )


def laid_over(values: Any, over: Any) -> Any:
    """Merge plain values key by key; a block of another `kind` replaces, as anything else does."""
    if not isinstance(values, dict) or not isinstance(over, dict):
        return over
    if over.get("kind", values.get("kind")) != values.get("kind"):
        return over
    return {**values, **{k: laid_over(values.get(k), value) for k, value in over.items()}}


@dataclass(frozen=True)
class Leaf:
    """A constant or a parameter, its name, and the choices that lead to it."""

    name: str
    node: Constant | Parameter
    branch: dict[str, Option]


def leaves(node: Node, name: str = "", branch: dict[str, Option] | None = None) -> Iterator[Leaf]:
    """Every constant and every parameter of all branches, in the order of the file."""
    branch = branch or {}
    if isinstance(node, Section):
        for key, child in node.children.items():
            yield from leaves(child, join(name, key), branch)
        if node.choice is not None:
            yield from leaves(node.choice, name or ROOT, branch)
        return
    yield Leaf(name, node, branch)
    if isinstance(node, Choice):
        for label, child in node.branches.items():
            if not isinstance(child, Constant):
                yield from leaves(child, inside(name, label), {**branch, name: label})


def grid_size(node: Node, name: str = "") -> int:
    """How many points `grid` has; raises InputError for a continuous range."""
    if isinstance(node, Section):
        return math.prod(grid_size(child, inner) for inner, child in _parts(node, name))
    if isinstance(node, Choice):
        return sum(grid_size(child, inside(name, k)) for k, child in node.branches.items())
    if isinstance(node, Constant):
        return 1
    size = node.size()
    if size is None:
        raise refusal(name, node.text(), "values, integers or q_uniform in a grid")
    return size


def grid(node: Node, name: str = "") -> Iterator[dict[str, Option]]:
    """Every combination of options, with the parameters of the chosen branches only."""
    if isinstance(node, Section):
        parts = [list(grid(child, inner)) for inner, child in _parts(node, name)]
        for points in itertools.product(*parts):
            yield {key: option for point in points for key, option in point.items()}
    elif isinstance(node, Choice):
        for label, child in node.branches.items():
            yield from ({name: label, **point} for point in grid(child, inside(name, label)))
    elif isinstance(node, Constant):
        yield {}
    else:
        yield from ({name: option} for option in node.options())


def _parts(section: Section, name: str) -> Iterator[tuple[str, Node]]:
    """What a section holds, by name: its keys and what is chosen between."""
    yield from ((join(name, key), child) for key, child in section.children.items())
    if section.choice is not None:
        yield name or ROOT, section.choice


# --- names --------------------------------------------------------------------------

# The name of the choice at the root, which has no key path: where a file has it.
ROOT = "parameters"


def join(name: str, key: str) -> str:
    """Name a parameter one level down: codebook.size."""
    return f"{name}.{key}" if name else key


def inside(name: str, label: Option) -> str:
    """Name a branch: codebook.update[ema]."""
    return f"{name}[{label}]"


def key_path(name: str) -> str:
    """Strip the branches from a name: the key path in TrialConfig."""
    path = re.sub(r"\[[^\]]*\]", "", name)
    return "" if path == ROOT else path.removeprefix(f"{ROOT}.")
