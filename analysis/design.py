"""The factors of trials as a matrix for models, and what it is were a factor set otherwise.

A technique that is switched on comes with the settings of a trial that has it; one that is
switched off loses its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from analysis.factors import Factor

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

# What a column says where its factor does not exist: outside of all that it can say otherwise.
ABSENT = -1.0
# Points at which a number is tried.
_POINTS = 8


class Design:
    """The factors of n trials as a matrix [n, columns], and how to change it.

    A number has a column from 0 to 1, a choice one of two levels a column of 0 and 1, one of
    more a column for each level; where the factor does not exist all are ABSENT.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        """Lay out the columns."""
        self.factors = {factor.name: factor for factor in factors}
        self.columns: dict[str, slice] = {}
        blocks: list[Matrix] = []
        end = 0
        for factor in factors:
            block = _encode(factor, factor.places)
            self.columns[factor.name] = slice(end, end + block.shape[1])
            end += block.shape[1]
            blocks.append(block)
        self.matrix: Matrix = np.hstack(blocks) if blocks else np.empty((0, 0), np.float32)
        self._within = {
            name: [other for other in self.factors if self.is_within(other, name)]
            for name in self.factors
        }

    def is_within(self, name: str, other: str) -> bool:
        """Whether a factor exists only on certain levels of another one."""
        parent = self.factors[name].parent
        return bool(parent) and (parent == other or self.is_within(parent, other))

    def column_numbers(self, names: Iterable[str]) -> list[int]:
        """Columns of factors and of all that is within them."""
        whole = [other for name in names for other in (name, *self._within[name])]
        return [i for name in whole for i in range(*self.columns[name].indices(10**9))]

    def allowed(self, name: str) -> npt.NDArray[np.bool_]:
        """Which levels of a technique each trial could have; a mask [levels, n].

        Techniques exclude each other, and a model that never saw two together makes things up
        about them. A level goes with a trial unless, for some other technique, no trial has this
        level together with what that trial has, where by chance one at least would.
        """
        factor = self.factors[name]
        mask = np.tile(factor.active, (len(factor.levels), 1))
        for other in self.factors.values():
            if other.block and other is not factor and not self.is_within(other.name, name):
                kinds = np.where(other.active, other.codes + 1, 0).astype(np.int64)
                counts = np.bincount(kinds)
                for code in range(len(mask)):
                    here = factor.codes == code
                    together = np.bincount(kinds[here], minlength=len(counts))
                    by_chance = counts * (here.sum() / len(here))
                    mask[code] &= ((together > 0) | (by_chance < 1))[kinds]
        return mask

    def varies(self, name: str) -> npt.NDArray[np.bool_]:
        """In which trials a factor could be otherwise, all else as it is; a mask [n]."""
        factor = self.factors[name]
        return self.allowed(name).sum(axis=0) > 1 if factor.block else factor.active

    def points(self, name: str) -> Floats:
        """Where a factor is tried: its levels or its few values, else points over its range."""
        places = self.factors[name].places
        values = np.unique(places[~np.isnan(places)])
        if self.factors[name].levels or len(values) <= _POINTS:
            return values
        return np.asarray((np.arange(_POINTS) + 0.5) / _POINTS)

    def put(self, rows: Matrix, name: str, point: float, chance: np.random.Generator) -> None:
        """Set a factor in `rows` [m, columns], in place.

        What is within it comes, all together, from trials drawn among those that have this value.
        """
        factor = self.factors[name]
        rows[:, self.columns[name]] = _encode(factor, np.array([point]))
        within = self.column_numbers(self._within[name])
        if within:
            donors = np.flatnonzero(factor.codes == point)
            drawn = chance.choice(donors, len(rows))
            rows[:, within] = self.matrix[drawn][:, within]


def _encode(factor: Factor, places: Floats) -> Matrix:
    """Columns [n, columns] for the places [n] of a factor."""
    columns = places[:, None]
    if len(factor.levels) > 2:
        columns = (columns == np.arange(len(factor.levels))).astype(np.float64)
    columns = np.where(np.isnan(places)[:, None], ABSENT, columns)
    return np.asarray(columns, dtype=np.float32)
