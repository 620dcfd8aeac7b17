"""The front as a chart: every complete trial a point, in two objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.findings import Findings
from analysis.flatten import row_dicts
from analysis.front import Objective, nondominated
from analysis.report.axes import Axis, dots, make_axis, path
from analysis.report.numbers import is_number, metric, number
from analysis.report.tables import safe_url

_DEFAULT = ("perplexity", "recon_loss")
_FACTS = ("active_codes", "usage", "bits_per_frame", "seconds")
_LAYERS = ("other", "front", "baseline", "third", "second", "first")
# Drawn beyond the axes' ends, so that lines and regions go on when the view is moved.
_FAR = 300.0


@dataclass(frozen=True)
class Point:
    """A complete trial.

    Attributes:
        trial_id: who it is.
        x, y: place in per cent, y from below.
        part: `baseline`, `first`, `second`, `third`, or `front` or `other`.
        tag: text inside the mark, may be empty.
        label: all of it in one line, for those who hear the page.
        facts: names and values for the card.
        technique: what it does otherwise than the baseline.
        reason: why it ranks where it does.
        url: address of its W&B run, or empty.

    """

    trial_id: str
    x: float
    y: float
    part: str
    tag: str
    label: str
    facts: tuple[tuple[str, str], ...]
    technique: str
    reason: str
    url: str


@dataclass(frozen=True)
class FrontChart:
    """What the front's SVG is drawn from; places in per cent, paths in 1000 x 1000.

    Attributes:
        x, y: the axes.
        points: from behind to before, the best last.
        staircase: the border of what the front dominates; empty in three objectives.
        broken: a rectangle (x, y, width, height in per mille) in which the constraint is broken.
        limit: the constraint, empty where it is about another metric.
        stopped: dots at the last reports of trials that were stopped early.
        summary: what the chart shows, in one sentence.

    """

    x: Axis
    y: Axis
    points: tuple[Point, ...]
    staircase: str
    broken: tuple[float, float, float, float] | None
    limit: str
    stopped: str
    summary: str


def front_chart(findings: Findings, wandb_urls: Mapping[str, str]) -> FrontChart | None:
    """Draw the complete trials; None where there is none.

    The axes are perplexity and recon_loss where both are objectives, else the first two. With one
    objective trials stand in the order in which they began, and the staircase is the best so far.
    """
    rows = [row for row in findings.rows if all(is_number(row[name]) for name in _shown(findings))]
    if not rows:
        return None
    goals = _goals(findings)
    order = {trial_id: i for i, trial_id in enumerate(findings.records.trials["trial_id"], 1)}
    names = [goal.name for goal in goals]
    values = [[float(row[name]) for name in names] for row in rows]
    if len(goals) == 1:
        values = [[order[row["trial_id"]], *own] for row, own in zip(rows, values, strict=True)]
        x = make_axis("trial, in the order of their beginnings", [v[0] for v in values], log=False)
        goals = (Objective("order", "min"), goals[0])
    else:
        x = _axis(goals[0], [v[0] for v in values])
    y = _axis(goals[1], [v[1] for v in values])
    places = [(x.place(a), y.place(b)) for a, b in values]
    points = [
        _point(findings, row, place, names, wandb_urls)
        for row, place in zip(rows, places, strict=True)
    ]
    front = [place for row, place in zip(rows, places, strict=True) if row["on_front"]]
    broken, limit = _broken(findings, goals, x, y)
    return FrontChart(
        x=x,
        y=y,
        points=tuple(sorted(points, key=lambda point: _LAYERS.index(point.part))),
        staircase=_staircase(front, goals) if len(findings.objectives) <= 2 and front else "",
        broken=broken,
        limit=limit,
        stopped=_stopped(findings, names, x, y) if len(names) == 2 else "",
        summary=_summary(findings, names),
    )


def _goals(findings: Findings) -> tuple[Objective, ...]:
    by_name = {goal.name: goal for goal in findings.objectives}
    if all(name in by_name for name in _DEFAULT):
        return tuple(by_name[name] for name in _DEFAULT)
    return findings.objectives[:2]


def _shown(findings: Findings) -> list[str]:
    return [goal.name for goal in _goals(findings)]


def _axis(goal: Objective, values: Sequence[float]) -> Axis:
    return make_axis(goal.name, values, hint="higher" if goal.direction == "max" else "lower")


def _point(
    findings: Findings,
    row: Mapping[str, Any],
    place: tuple[float, float],
    names: Sequence[str],
    wandb_urls: Mapping[str, str],
) -> Point:
    trial_id = str(row["trial_id"])
    part = findings.cast.get(trial_id)
    more = [goal.name for goal in findings.objectives if goal.name not in names]
    facts = []
    for name in dict.fromkeys([*names, *more, *_FACTS]):
        if is_number(row.get(name)):
            ratio = row.get(f"{name}_x")
            times = f" ({number(ratio, '.3g')} × baseline)" if is_number(ratio) else ""
            facts.append((name, metric(name, row[name]) + times))
    title = part.title if part else trial_id
    where = "on the front" if row["on_front"] else "not on the front"
    told = ", ".join(f"{name} {metric(name, row[name])}" for name in names)
    return Point(
        trial_id=trial_id,
        x=place[0],
        y=place[1],
        part=part.name if part else "front" if row["on_front"] else "other",
        tag=part.tag if part else "",
        label=f"{title}: {told}, {where}; {row['technique']}",
        facts=tuple(facts),
        technique=str(row["technique"]),
        reason=str(row["reason"]),
        url=safe_url(wandb_urls, trial_id),
    )


def _staircase(places: Sequence[tuple[float, float]], goals: Sequence[Objective]) -> str:
    """The border between what the points dominate and what they do not.

    From one end of the front to the other a step first gives up the second objective, then gains
    in the first.
    """
    unique = np.unique(np.asarray(places, dtype=np.float64), axis=0)
    mask = nondominated(unique, [goal.direction for goal in goals])
    front = sorted(map(tuple, unique[mask]))
    rising = goals[0].direction == "max"
    worst = -_FAR if rising else 100 + _FAR
    front = front if rising else front[::-1]
    steps = [(worst, front[0][1]), front[0]]
    for (x0, _), (x1, y1) in pairwise(front):
        steps += [(x0, y1), (x1, y1)]
    steps.append((front[-1][0], -_FAR if goals[1].direction == "max" else 100 + _FAR))
    return path(steps)


def _broken(
    findings: Findings, goals: Sequence[Objective], x: Axis, y: Axis
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Where the constraint is broken, with y downwards as in SVG."""
    constraint, limit = findings.constraint, findings.limit
    names = [goal.name for goal in goals]
    if constraint is None or limit is None or constraint.metric not in names:
        return None, ""
    far = 1000 * _FAR / 100
    if constraint.metric == names[0]:
        at = 10 * x.place(limit)
        start, end = (at, 1000 + far) if constraint.sign == "<=" else (-far, at)
        return (start, -far, max(end - start, 0.0), 1000 + 2 * far), str(constraint)
    at = 1000 - 10 * y.place(limit)
    start, end = (-far, at) if constraint.sign == "<=" else (at, 1000 + far)
    return (-far, start, 1000 + 2 * far, max(end - start, 0.0)), str(constraint)


def _stopped(findings: Findings, names: Sequence[str], x: Axis, y: Axis) -> str:
    trials = findings.records.trials
    ended = trials[trials["state"].isin(["stopped", "running"])]
    found = [(float(row[names[0]]), float(row[names[1]])) for row in row_dicts(ended)]
    return dots((x.place(a), y.place(b)) for a, b in found if is_number(a) and is_number(b))


def _summary(findings: Findings, names: Sequence[str]) -> str:
    n, front = len(findings.ranked), int(findings.ranked["on_front"].sum())
    told = " and ".join(names)
    trials = "1 complete trial" if n == 1 else f"{n} complete trials"
    return f"{trials} by {told}; {front} on the front."
