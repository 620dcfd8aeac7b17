"""Pictures of a run's trials: the front, the learning curves, confirmed beside searched."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.findings import Findings
from analysis.flatten import row_dicts
from analysis.front import nondominated

_CURVES = ("perplexity", "recon_loss")
_STATES = {"complete": ("#8a9099", 0.7), "stopped": ("#b9bec5", 0.6)}


def front(findings: Findings) -> Figure | None:
    """Every complete trial by the first two objectives; None without two or without trials."""
    goals = findings.objectives[:2]
    names = [goal.name for goal in goals]
    if len(goals) < 2 or not findings.rows:
        return None
    figure = Figure(figsize=(5.2, 3.6))
    axes = figure.subplots()
    values = np.array([[row[name] for name in names] for row in findings.rows], dtype=float)
    mask = np.array([bool(row["on_front"]) for row in findings.rows])
    x, y = values.T
    axes.scatter(x[~mask], y[~mask], s=16, facecolors="none", edgecolors="#767c86", linewidths=0.9)
    if len(findings.objectives) == 2:
        steps = values[mask][nondominated(values[mask], [goal.direction for goal in goals])]
        rising = goals[0].direction == "max"
        line = steps[np.argsort(steps[:, 0])].T
        axes.step(*line, where="pre" if rising else "post", color="#1c1e22", linewidth=1)
    axes.scatter(x[mask], y[mask], s=18, color="#1c1e22", label="front")
    for row in findings.rows:
        part = findings.cast.get(row["trial_id"])
        if part is not None:
            marker = "s" if part.name == "baseline" else "o"
            axes.plot(
                *([row[name]] for name in names),
                linestyle="",
                marker=marker,
                markersize=7,
                color=part.colour,
                label=part.title,
            )
    _limit(findings, axes, names)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.legend()
    return figure


def curves(findings: Findings) -> Figure | None:
    """Perplexity and recon_loss of every trial over samples; None without a report."""
    reports = findings.records.reports
    if reports.empty:
        return None
    figure = Figure(figsize=(7.2, 3.0))
    states = {row["trial_id"]: row["state"] for row in row_dicts(findings.records.trials)}
    for axes, name in zip(figure.subplots(1, 2), _CURVES, strict=True):
        for trial_id, own in reports.groupby("trial_id", sort=False):
            sound = own[~own["diverged"] & np.isfinite(own[name])]
            part = findings.cast.get(str(trial_id))
            colour, alpha = _STATES.get(states[trial_id], ("#d5d8dc", 0.6))
            if part is not None:
                style = "--" if part.name == "baseline" else "-"
                axes.plot(
                    *(sound["samples"], sound[name]),
                    *(style,),
                    color=part.colour,
                    linewidth=1.6,
                    label=part.title,
                    zorder=3,
                )
            else:
                axes.plot(sound["samples"], sound[name], color=colour, alpha=alpha, linewidth=0.7)
        axes.set(xlabel="samples", ylabel=name)
        if axes.get_legend_handles_labels()[1] and name == _CURVES[1]:
            axes.legend()
    return figure


def confirmed(findings: Findings) -> Figure | None:
    """The finalists' means and deviations over new seeds, beside what was searched."""
    if findings.confirmed is None:
        return None
    rows = [
        row
        for row in row_dicts(findings.confirmed)
        if all(np.isfinite(row[name]) for name in (*_CURVES, *(f"{n}_searched" for n in _CURVES)))
    ]
    # Far away as it is, the baseline would leave the finalists' moves no room.
    rows = [row for row in rows if row["role"] != "baseline"] or rows
    if not rows:
        return None
    x, y = _CURVES
    figure = Figure(figsize=(5.2, 3.6))
    axes = figure.subplots()
    for row in rows:
        part = findings.cast.get(row["trial_id"])
        colour = part.colour if part else "#767c86"
        searched, mean = (row[f"{x}_searched"], row[f"{y}_searched"]), (row[x], row[y])
        arrow = {"arrowstyle": "->", "color": "#767c86", "linewidth": 0.8, "shrinkB": 6}
        axes.annotate("", xy=mean, xytext=searched, arrowprops=arrow)
        axes.scatter(*searched, s=30, facecolors="white", edgecolors=colour)
        axes.errorbar(
            *mean,
            xerr=np.nan_to_num(row[f"{x}_sd"]),
            yerr=np.nan_to_num(row[f"{y}_sd"]),
            fmt="o",
            color=colour,
            capsize=2,
            label=part.title if part else row["trial_id"],
        )
    axes.set(xlabel=x, ylabel=y)
    axes.legend(title="○ searched   ● confirmed", title_fontsize=8)
    return figure


def _limit(findings: Findings, axes: Axes, names: list[str]) -> None:
    """Shade where the constraint is broken."""
    limit = findings.limit
    if findings.constraint is None or limit is None or findings.constraint.metric not in names:
        return
    horizontal = findings.constraint.metric == names[1]
    low, high = axes.get_ylim() if horizontal else axes.get_xlim()
    start, end = (limit, max(high, limit)) if findings.constraint.sign == "<=" else (low, limit)
    span = axes.axhspan if horizontal else axes.axvspan
    span(
        start, end, color="#5d636c", alpha=0.12, linewidth=0, label=f"breaks {findings.constraint}"
    )
    (axes.set_ylim if horizontal else axes.set_xlim)(low, max(high, limit))
