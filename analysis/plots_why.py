"""Pictures of why: importance of the parameters, effects of the techniques, their curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.findings import Findings

_BARS = 10
_BLUE, _GREY = "#0067a3", "#767c86"


def importance(findings: Findings) -> Figure | None:
    """Shares by PED-ANOVA as bars and by fANOVA as ticks; None where neither is known."""
    known = findings.importance.dropna(subset=["ped_anova", "fanova"], how="all")
    if known.empty:
        return None
    groups = list(known.groupby("objective", sort=False))
    figure = Figure(figsize=(3.9 * len(groups), 3.0))
    for axes, (objective, own) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True
    ):
        shares = own[["ped_anova", "fanova"]].astype(float)
        top = own.loc[shares.max(axis=1).nlargest(_BARS).index].sort_values("ped_anova")
        places = np.arange(len(top))
        axes.barh(places, top["ped_anova"].fillna(0.0), color=_BLUE, height=0.6, label="PED-ANOVA")
        axes.scatter(top["fanova"], places, marker="|", s=90, color="black", label="fANOVA")
        names = [str(name).removeprefix("config.") for name in top["parameter"]]
        axes.set_yticks(places, names)
        axes.set(xlabel="share of the importance", title=f"for {objective}")
    names = axes.get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=2)
    return figure


def effects(findings: Findings) -> Figure | None:
    """What each technique adds to each objective, with its interval; None where none is known."""
    known = findings.effects.dropna(subset=["effect"])
    if known.empty:
        return None
    groups = list(known.groupby("objective", sort=False))
    most = max(len(own) for _, own in groups)
    figure = Figure(figsize=(3.6 * len(groups), 0.9 + 0.28 * most))
    for axes, (objective, table) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True
    ):
        own = table.sort_values("effect")
        places = np.arange(len(own))
        axes.axvline(0, color="#b9bec5", linewidth=1)
        axes.hlines(places, own["low"], own["high"], color=_BLUE)
        axes.plot(own["effect"], places, "o", color=_BLUE, markersize=4)
        axes.set_yticks(places, [str(name) for name in own["technique"]])
        axes.set(xlabel=f"effect on {objective}")
    return figure


def techniques(findings: Findings) -> Figure | None:
    """Medians and quartiles over samples with and without each technique; None without both."""
    table = findings.curves[findings.curves["median"].notna()]
    if table.empty:
        return None
    shown = [
        (technique, own)
        for technique, own in table.groupby("technique", sort=False)
        if own.groupby("on")["samples"].nunique().reindex([True, False], fill_value=0).min() > 1
    ]
    metrics = list(dict.fromkeys(table["metric"]))
    if not shown:
        return None
    figure = Figure(figsize=(2.6 * len(metrics) + 0.4, 1.35 * len(shown) + 0.6))
    grid = figure.subplots(len(shown), len(metrics), sharex=True, sharey="col", squeeze=False)
    for row, (technique, own) in enumerate(shown):
        for column, name in enumerate(metrics):
            axes = grid[row, column]
            _bands(axes, own[own["metric"] == name])
            axes.set_ylabel(name)
            axes.set_title(str(technique) if column == 0 else "", loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("samples")
    grid[0, 0].legend()
    return figure


def _bands(axes: Axes, table: pd.DataFrame) -> None:
    for on, colour, style in ((False, _GREY, "--"), (True, _BLUE, "-")):
        own = table[table["on"] == on].sort_values("samples")
        axes.fill_between(own["samples"], own["low"], own["high"], color=colour, alpha=0.18, lw=0)
        label = "with" if on else "without"
        axes.plot(own["samples"], own["median"], style, color=colour, linewidth=1.4, label=label)
