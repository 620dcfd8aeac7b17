"""Why it works: which parameters matter, what each technique does, which go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.findings import Findings
from analysis.flatten import row_dicts
from analysis.report.axes import Axis, make_axis, path
from analysis.report.numbers import ABSENT, is_number, metric, number

_BARS = 8
_PAIRS = 6


@dataclass(frozen=True)
class Bar:
    """A parameter's shares, by PED-ANOVA as `bar` and by fANOVA as `tick`, None if not known.

    `note` is what to know of this parameter alone.
    """

    name: str
    bar: float | None
    tick: float | None
    told: str
    second: str
    note: str


@dataclass(frozen=True)
class Bars:
    """One objective's bars, the longest first; `note` is what to know of all of them."""

    objective: str
    bars: tuple[Bar, ...]
    note: str


@dataclass(frozen=True)
class Effect:
    """A technique's effect on one objective: places in per cent, None where not known."""

    technique: str
    at: float | None
    low: float | None
    high: float | None
    good: str
    told: str
    interval: str
    trials: str


@dataclass(frozen=True)
class Effects:
    """The effects on one objective; `zero` is the place of no effect."""

    objective: str
    axis: Axis
    zero: float
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class Pair:
    """Two parameters and the share of the variance that only both together explain."""

    first: str
    second: str
    bar: float
    told: str
    chance: str


@dataclass(frozen=True)
class Band:
    """A median over samples with its quartiles."""

    on: bool
    median: str
    band: str
    label: str


@dataclass(frozen=True)
class TechniqueChart:
    """One technique's trials with and without it, in one metric."""

    technique: str
    metric: str
    x: Axis
    y: Axis
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Why:
    """The section's parts; `untold` are techniques whose effects are not estimated."""

    importance: tuple[Bars, ...]
    effects: tuple[Effects, ...]
    untold: tuple[str, ...]
    pairs: Mapping[str, tuple[Pair, ...]]
    curves: Mapping[str, tuple[TechniqueChart, ...]]


def why(findings: Findings) -> Why:
    """Draw importance, effects, pairs and the techniques' curves."""
    effects = findings.effects
    return Why(
        importance=tuple(_importance(findings.importance)),
        effects=tuple(_effects(findings)),
        untold=tuple(dict.fromkeys(map(str, effects["technique"][effects["effect"].isna()]))),
        pairs=_pairs(findings.interactions),
        curves=_curves(findings.curves),
    )


def _importance(table: pd.DataFrame) -> list[Bars]:
    drawn = []
    for objective, own in table.groupby("objective", sort=False):
        shares = own[["ped_anova", "fanova"]].astype(float)
        known = own[shares.notna().any(axis=1)]
        # The largest by either method, in the order of the first.
        chosen = known.loc[shares.max(axis=1).reindex(known.index).nlargest(_BARS).index]
        chosen = chosen.sort_values("ped_anova", ascending=False, kind="stable")
        full = float(shares.max().max()) if len(known) else 1.0
        notes = [set(str(note).split("; ")) - {""} for note in own["note"]]
        common = set.intersection(*notes)
        bars = tuple(
            Bar(
                name=short(row["parameter"]),
                bar=_share(row["ped_anova"], full),
                tick=_share(row["fanova"], full),
                told=number(row["ped_anova"], ".0%"),
                second=number(row["fanova"], ".0%"),
                note="; ".join(p for p in str(row["note"]).split("; ") if p not in common),
            )
            for row in row_dicts(chosen)
        )
        order = str(own["note"].iloc[0]).split("; ")
        note = "; ".join(part for part in order if part in common)
        drawn.append(Bars(str(objective), bars, sentence(note)))
    return drawn


def sentence(text: str) -> str:
    """Make a sentence of a note, nothing of nothing; fANOVA keeps its small letter."""
    if not text:
        return ""
    return f"{text}." if text[1:2].isupper() else f"{text[0].upper()}{text[1:]}."


def _share(value: Any, full: float) -> float | None:
    return round(100 * value / (full or 1.0), 2) if is_number(value) else None


def _effects(findings: Findings) -> list[Effects]:
    ways = {goal.name: goal.direction for goal in findings.objectives}
    drawn = []
    for name, own in findings.effects.groupby("objective", sort=False):
        objective = str(name)
        values = own[["effect", "low", "high"]].to_numpy(dtype=float).ravel().tolist()
        axis = make_axis(f"effect on {objective}", [0.0, *values], log=False, count=4)
        way = ways.get(objective, "max")
        rows = row_dicts(own[own["effect"].notna()])
        if not rows:
            continue
        rows.sort(key=lambda row: _gain(row["effect"], way), reverse=True)
        drawn.append(
            Effects(
                objective,
                axis,
                axis.place(0.0),
                tuple(_effect(row, axis, objective, way) for row in rows),
            )
        )
    return drawn


def _gain(effect: Any, way: str) -> float:
    if not is_number(effect):
        return float("-inf")
    return float(effect) if way == "max" else -float(effect)


def _effect(row: Mapping[str, Any], axis: Axis, objective: str, way: str) -> Effect:
    at, low, high = (
        axis.place(row[key]) if is_number(row[key]) else None for key in ("effect", "low", "high")
    )
    sure = is_number(row["low"]) and is_number(row["high"]) and row["low"] * row["high"] > 0
    gain = _gain(row["effect"], way)
    known = low is not None and high is not None
    interval = f"({signed(objective, row['low'])} to {signed(objective, row['high'])})"
    return Effect(
        technique=str(row["technique"]),
        at=at,
        low=low,
        high=high,
        good="unsure" if not sure else "better" if gain > 0 else "worse",
        told=signed(objective, row["effect"]),
        interval=interval if known else "",
        trials=f"{number(row['on'], '.0f')} / {number(row['off'], '.0f')}",
    )


def signed(name: str, value: Any) -> str:
    """Format a difference with its sign."""
    if not is_number(value):
        return ABSENT
    told = metric(name, value) if abs(value) >= 1 else number(value, ".2g")
    return f"{'+' if value > 0 else ''}{told}"


def _pairs(table: pd.DataFrame) -> dict[str, tuple[Pair, ...]]:
    drawn = {}
    for objective, own in table.groupby("objective", sort=False):
        known = own[own["strength"] > 0].sort_values("strength", ascending=False, kind="stable")
        top = row_dicts(known.head(_PAIRS))
        full = max((row["strength"] for row in top), default=1.0)
        drawn[str(objective)] = tuple(
            Pair(
                short(row["first"]),
                short(row["second"]),
                round(100 * row["strength"] / full, 2),
                number(row["strength"], ".0%"),
                f"p {number(row['p'], '.1g')}" if is_number(row["p"]) else "",
            )
            for row in top
        )
    return {objective: pairs for objective, pairs in drawn.items() if pairs}


def _curves(table: pd.DataFrame) -> dict[str, tuple[TechniqueChart, ...]]:
    """Charts by metric; all of one metric on one scale."""
    drawn = {}
    for name, own in table.groupby("metric", sort=False):
        kept = own[own["median"].notna()]
        values = kept[["median", "low", "high"]].to_numpy(dtype=float).ravel().tolist()
        x = make_axis("samples", kept["samples"].tolist(), zero=True, margin=0.0, count=2)
        y = make_axis(str(name), values, count=3)
        charts = []
        for technique, both in kept.groupby("technique", sort=False):
            bands = tuple(_band(str(technique), on, both, x, y) for on in (False, True))
            bands = tuple(band for band in bands if band.median)
            if len(bands) == 2:  # with one side there is nothing to compare
                charts.append(TechniqueChart(str(technique), str(name), x, y, bands))
        if charts:
            drawn[str(name)] = tuple(charts)
    return drawn


def _band(technique: str, on: bool, table: pd.DataFrame, x: Axis, y: Axis) -> Band:
    own = table[table["on"] == on].sort_values("samples")
    places = [x.place(value) for value in own["samples"]]
    median, low, high = (
        [y.place(value) if is_number(value) else None for value in own[key]]
        for key in ("median", "low", "high")
    )
    line = [(a, b) for a, b in zip(places, median, strict=True) if b is not None]
    upper = [(a, b) for a, b in zip(places, high, strict=True) if b is not None]
    lower = [(a, b) for a, b in zip(places, low, strict=True) if b is not None]
    last = number(own["median"].iloc[-1], ".4g") if len(own) else ABSENT
    return Band(
        on=on,
        median=path(line) if len(line) > 1 else "",
        band=path([*upper, *reversed(lower)]) + "Z" if upper and lower else "",
        label=f"{'with' if on else 'without'} {technique}: median {last} at the last report",
    )


def short(parameter: Any) -> str:
    """A parameter without what all of them begin with: `commitment.beta`."""
    return str(parameter).removeprefix("config.").removeprefix("codebook.")
