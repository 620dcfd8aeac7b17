"""A confirmation in words: a terminal's table, and what the search had promised too much.

Made from `confirmed.confirmed`, for `vqtune confirm`, the report and an export's README.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.confirmed import Confirmation
from analysis.flatten import row_dicts
from analysis.front import Objective

_ABSENT = "–"
_FORMS = {"perplexity": (".1f", ".1f"), "recon_loss": (".4g", ".2g")}
_OTHER = (".4g", ".2g")


def confirmed_rows(
    table: pd.DataFrame, goals: Sequence[Objective]
) -> tuple[list[str], list[list[str]]]:
    """Format headers and cells for a terminal, one row for each row of `table`.

    A metric is told as the search's value, and mean and deviation of the confirmation.
    """
    shown = list(dict.fromkeys(["perplexity", "recon_loss", *(goal.name for goal in goals)]))
    headers = ["trial", "seeds", *(f"{name}: searched → confirmed" for name in shown)]
    headers += ["front", "no harm", "active", "technique"]
    return headers, [_cells(row, shown, _has_baseline(table)) for row in row_dicts(table)]


def spread(row: Mapping[str, Any], name: str) -> str:
    """Mean and deviation of a metric in a row of `confirmed`, as in `398.2 ± 4.1`."""
    form, narrow = _FORMS.get(name, _OTHER)
    mean, deviation = row[name], row[f"{name}_sd"]
    if not math.isfinite(mean):
        return _ABSENT
    told = format(mean, form)
    return f"{told} ± {deviation:{narrow}}" if math.isfinite(deviation) else told


def probability(row: Mapping[str, Any]) -> str:
    """How probably a row of `confirmed` is on the front, in percent."""
    share = row["probability"]
    if not math.isfinite(share):
        return _ABSENT
    return "> 99%" if 0.995 <= share < 1 else "< 1%" if 0 < share < 0.005 else f"{share:.0%}"


def left_out(found: Confirmation) -> list[str]:
    """Say which trials are not counted, and why."""
    ends = {row["trial_id"]: row for row in row_dicts(found.records.trials)}
    told = []
    for trial in (f"{name}-s{seed}" for seed in found.seeds for name in found.finalists):
        end = ends.get(trial, {"state": "not started", "reason": ""})
        if end["state"] != "complete":
            told.append(f"Not counted: {trial}, {end['reason'] or end['state']}")
    return told


def promised(table: pd.DataFrame, goals: Sequence[Objective]) -> str:
    """Say by how much the search's values were better than those of the confirmation, on average.

    Over the finalists, relative to the confirmed mean; empty where nothing is confirmed.
    """
    finalists = table[table["role"] != "baseline"]
    better: list[str] = []
    worse: list[str] = []
    count = 0
    for goal in goals:
        mean, searched = finalists[goal.name], finalists[f"{goal.name}_searched"]
        sign = 1 if goal.direction == "max" else -1
        gain = (sign * (searched - mean) / mean.abs()).replace([math.inf, -math.inf], math.nan)
        if gain.notna().any():
            count = max(count, int(gain.notna().sum()))
            told = f"{abs(gain.mean()):.1%} in {goal.name}"
            (better if gain.mean() > 0 else worse).append(told)
    parts = [
        f"{word} than confirmed by {' and '.join(values)}"
        for word, values in (("better", better), ("worse", worse))
        if values
    ]
    if not parts:
        return ""
    over = "" if count == 1 else f", on average over {count} finalists"
    curse = ": the winner's curse" if better else ""
    return f"Searched values were {' and '.join(parts)}{over}{curse}"


def choice(table: pd.DataFrame) -> dict[str, Any] | None:
    """The row of the finalist to take, the first by its means; None where none is confirmed."""
    rows = table[(table["role"] != "baseline") & table["on_front"]]
    return None if rows.empty else row_dicts(rows.sort_values("position"))[0]


def sentences(table: pd.DataFrame, goals: Sequence[Objective]) -> list[str]:
    """Say what the confirmation tells: how much was luck, and which config to take."""
    told = [promised(table, goals)]
    chosen = choice(table)
    if chosen is None:
        told.append("No finalist is confirmed: none is on the front of the means")
    else:
        share = probability(chosen)
        on_front = f", on the front with a probability of {share}" if share != _ABSENT else ""
        told.append(
            f"Take {chosen['trial_id']}: {_values(chosen, table)}{on_front}; first by its means: "
            f"{chosen['reason']}"
        )
    if table["probability"].isna().all() and table["seeds_complete"].max() == 1:
        told.append("With one seed there is neither a deviation nor a probability")
    return [line for line in told if line]


def _values(row: Mapping[str, Any], table: pd.DataFrame) -> str:
    baseline = table[table["role"] == "baseline"]
    told = []
    for name in ("perplexity", "recon_loss"):
        base = float(baseline[name].iloc[0]) if len(baseline) else math.nan
        ratio = row[name] / base if base else math.nan
        times = f" ({ratio:.3g} × baseline)" if math.isfinite(ratio) else ""
        told.append(f"{name} {spread(row, name)}{times}")
    return ", ".join(told)


def _cells(row: Mapping[str, Any], shown: Sequence[str], held: bool) -> list[str]:
    complete, seeds = row["seeds_complete"], row["seeds"]
    base = row["role"] == "baseline"
    return [
        row["trial_id"],
        str(seeds) if complete == seeds else f"{complete} of {seeds}",
        *(f"{_searched(row, name)} → {spread(row, name)}" for name in shown),
        f"{'yes' if row['on_front'] else 'no'} ({probability(row)})" if complete else _ABSENT,
        ("yes" if row["harmless"] else "no") if held and complete else _ABSENT,
        format(row["active_codes"], ".0f") if math.isfinite(row["active_codes"]) else _ABSENT,
        "baseline" if base else row["technique"],
    ]


def _searched(row: Mapping[str, Any], name: str) -> str:
    value = row[f"{name}_searched"]
    return format(value, _FORMS.get(name, _OTHER)[0]) if math.isfinite(value) else _ABSENT


def _has_baseline(table: pd.DataFrame) -> bool:
    return bool(table.loc[table["role"] == "baseline", "recon_loss"].notna().any())
