"""The learning curves: every trial a line over the samples it has drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.findings import Findings
from analysis.flatten import row_dicts
from analysis.report.axes import Axis, make_axis, path, spread_out
from analysis.report.numbers import metric

METRICS = ("perplexity", "recon_loss")
_HINTS = {"perplexity": "higher", "recon_loss": "lower"}
# Height of a tag, in per cent of a chart's height.
_TAG = 5.0
# Behind to before; the parts of the cast stand before all of them.
_LAYERS = ("failed", "diverged", "running", "stopped", "complete")


@dataclass(frozen=True)
class Curve:
    """One trial's line, a dot where it has reported once.

    `part` is its part or its state, `end` the place of its last value.
    """

    trial_id: str
    part: str
    tag: str
    path: str
    end: float
    once: bool
    label: str


@dataclass(frozen=True)
class CurvesChart:
    """One metric over samples; curves from behind to before; tags as part, text and place."""

    metric: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    tags: tuple[tuple[str, str, float], ...]


def curves_charts(findings: Findings) -> tuple[CurvesChart, ...]:
    """Draw each of METRICS over samples; none where no trial has reported."""
    reports = findings.records.reports
    samples = [0.0, *reports["samples"].tolist()]
    x = make_axis("samples", samples, zero=True, log=False, margin=0.0, count=4)
    charts = []
    for name in METRICS:
        sound = reports[~reports["diverged"] & reports[name].map(math.isfinite)]
        if sound.empty:
            continue
        y = make_axis(name, sound[name].tolist(), hint=_HINTS[name])
        by_trial = {str(trial_id): own for trial_id, own in sound.groupby("trial_id", sort=False)}
        trials = [row for row in row_dicts(findings.records.trials) if row["trial_id"] in by_trial]
        curves = [_curve(findings, row, name, by_trial[row["trial_id"]], x, y) for row in trials]
        charts.append(CurvesChart(name, x, y, tuple(sorted(curves, key=_layer)), _tags(curves)))
    return tuple(charts)


def _curve(
    findings: Findings,
    trial: Mapping[str, Any],
    name: str,
    reports: pd.DataFrame,
    x: Axis,
    y: Axis,
) -> Curve:
    part = findings.cast.get(trial["trial_id"])
    points = list(zip(reports["samples"], reports[name], strict=True))
    last, value = points[-1]
    state = f"{trial['state']} at {last:,.0f} samples"
    title = part.title if part else trial["trial_id"]
    return Curve(
        trial_id=trial["trial_id"],
        part=part.name if part else trial["state"],
        tag=part.tag if part else "",
        path=path((x.place(a), y.place(b)) for a, b in points),
        end=y.place(value),
        once=len(points) == 1,
        label=f"{title}: {name} {metric(name, value)}, {state}",
    )


def _tags(curves: Sequence[Curve]) -> tuple[tuple[str, str, float], ...]:
    """Parts and tags of the cast at the ends of their lines, not over each other."""
    tagged = [curve for curve in curves if curve.tag]
    places = spread_out([curve.end for curve in tagged], _TAG)
    return tuple((c.part, c.tag, at) for c, at in zip(tagged, places, strict=True))


def _layer(curve: Curve) -> int:
    order: Sequence[str] = (*_LAYERS, "third", "second", "first", "baseline")
    return order.index(curve.part)
