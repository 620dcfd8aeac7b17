"""The techniques among the factors of trials, each with the trials that have it and those without.

`effects` says what each is worth, `curves` shows how its trials learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.factors import OFF, ON, Factor
from analysis.technique import PLAIN


@dataclass(frozen=True)
class Switch:
    """A technique and who has it.

    Attributes:
        technique: its name, as in the words of the front's table: `respawn`, `ema`,
            `normalization batch`.
        factor: the factor that it is a level of.
        on: which trials have it; a mask [n].
        off: which have what it is compared with; a mask [n]. Of a block that can be off those
            where it is, of one that is always of some kind those of the plain kind, or where none
            is, those of any other.

    """

    technique: str
    factor: Factor
    on: npt.NDArray[np.bool_]
    off: npt.NDArray[np.bool_]


def switches(found: Sequence[Factor]) -> list[Switch]:
    """Make a switch of each technique, or each of its kinds, in the order of the factors."""
    made = []
    for factor in (factor for factor in found if factor.block):
        name = factor.name.rpartition(".")[2]
        plain = OFF if OFF in factor.levels else _plain_kind(factor.name)
        kinds = [level for level in factor.levels if level != plain]
        for kind in kinds:
            on = factor.codes == factor.levels.index(kind)
            if plain in factor.levels:
                off = factor.codes == factor.levels.index(plain)
            else:
                off = factor.active & ~on
            made.append(Switch(_named(name, str(kind), plain, len(kinds)), factor, on, off))
    return made


def _named(name: str, kind: str, plain: str | None, kinds: int) -> str:
    if plain != OFF:
        return kind
    return name if kind == ON or kinds == 1 else f"{name} {kind}"


def _plain_kind(path: str) -> str | None:
    """The kind that the plain VQ-VAE has at a path."""
    block: Any = PLAIN
    for key in path.split("."):
        block = block.get(key) if isinstance(block, Mapping) else None
    kind = block.get("kind") if isinstance(block, Mapping) else None
    return kind if isinstance(kind, str) else None
