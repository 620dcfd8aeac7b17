"""A table without end: every proposal gets a curve of its own, as a forest predicts it.

The recorded table answers a proposal with the nearest config that is left, whose shapes are mostly
others than those proposed. Where it counts that trials have the same shapes and differ in what is
left, the curve has to be that of what was proposed: here a forest fitted to the recorded curves
gives it, without noise, and with less at its extremes than training would show.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict

from analysis.front import hypervolume, nondominated
from benchmarks.replay.record import METRICS
from benchmarks.replay.table import DIRECTIONS, OBJECTIVES, REFERENCE, Curve, Floats, Table, _draws
from vqtune.spaces import Space

# Rows that a run may use; random proposals whose front is the full one.
_ROWS, _DRAWN = 4_000, 20_000
_PREDICTED = ("recon_loss", "perplexity", "usage")
# What a parameter that a config lacks is to the forest: below all shares of a range.
_ABSENT = -1.0


class Predicted(Table):
    """The recorded table as the ground of a forest; rows are made as they are asked for.

    `begin` makes room for another run. Row 0 is the recorded baseline.
    """

    @classmethod
    def read(cls, folder: Path, space: Space) -> Predicted:
        """Read the recorded table from a folder, and fit the forest."""
        found = super().read(folder, space)
        assert isinstance(found, cls)
        found._recorded, found._ends = found.curves, found.ends
        found._features = np.nan_to_num(found._encoded, nan=_ABSENT)
        found._targets = np.array([_target(curve) for curve in found.curves])
        found._forest = _forest().fit(found._features[1:], found._targets[1:])
        found.begin()
        return found

    def begin(self) -> None:
        """Forget the rows of the last run."""
        self.curves = [self._recorded[0]]
        self.ends = np.full((_ROWS, len(OBJECTIVES)), np.nan)
        self.ends[0] = self._ends[0]

    def __len__(self) -> int:
        """Rows that a run may use, the baseline among them."""
        return _ROWS

    @functools.cached_property
    def full(self) -> float:
        """The hypervolume of the front of very many random proposals."""
        drawn = np.array([self._encode(given) for given in _draws(self.space, _DRAWN)])
        ends = self._ends_of(self._forest.predict(np.nan_to_num(drawn, nan=_ABSENT)))
        return hypervolume(ends[nondominated(ends, DIRECTIONS)], DIRECTIONS, REFERENCE)

    def nearest(self, parameters: Mapping[str, Any], unused: npt.NDArray[np.bool_]) -> int | None:
        """The next row, with the curve that is predicted for what is proposed."""
        row = len(self.curves)
        if row == _ROWS:
            return None
        features = np.nan_to_num(self._encode(parameters), nan=_ABSENT)
        target = self._forest.predict(features[None])
        like = self._recorded[1 + int(np.abs(self._features[1:] - features).sum(axis=1).argmin())]
        metrics = dict(zip(_PREDICTED, np.exp(target[0][:-1].reshape(3, -1)), strict=True))
        blank = {name: np.full(len(like), np.nan) for name in METRICS if name not in metrics}
        codes = np.full(len(like), round(float(np.exp(target[0][-1]))), dtype=np.int64)
        self.curves.append(Curve(like.samples, like.seconds, metrics | blank, codes, False))
        self.ends[row] = self._ends_of(target)[0]
        return row

    def fit(self) -> Floats:
        """R² of both objectives' logarithms at the end, on configs that the forest has not seen."""
        seen = cross_val_predict(_forest(), self._features[1:], self._targets[1:], cv=8)
        true = np.log(self._ends_of(self._targets[1:]))
        wrong = true - np.log(self._ends_of(seen))
        found: Floats = 1 - wrong.var(axis=0) / true.var(axis=0)
        return found

    def _ends_of(self, targets: Floats) -> Floats:
        """[rows, objectives] from what the forest gives."""
        last = np.exp(targets[:, :-1].reshape(len(targets), 3, -1)[:, :, -1])
        return np.column_stack([last[:, _PREDICTED.index(name)] for name in OBJECTIVES])


def _forest() -> ExtraTreesRegressor:
    return ExtraTreesRegressor(100, random_state=0)


def _target(curve: Curve) -> Floats:
    """Logarithms of what is predicted at each report, and of K; [3 x reports + 1]."""
    metrics = [np.log(curve.metrics[name]) for name in _PREDICTED]
    return np.concatenate([*metrics, [np.log(curve.codes[-1])]])
